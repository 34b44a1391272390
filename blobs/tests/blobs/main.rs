//! The store keeps its word, as a folder and as a bucket of a real server.

mod contract;
mod folder;
mod s3;
mod speed;
mod support;
