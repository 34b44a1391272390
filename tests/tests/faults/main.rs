//! Nothing lost, nothing twice, in order: workloads under faults, judged from what clients saw.

mod fixed;
mod plain;
