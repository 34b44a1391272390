//! The judge is judged: on forged histories with one violation each, on clean ones that look bad, and on generated ones.

mod clean;
mod files;
mod forge;
mod generated;
mod kinds;
mod model;
