//! A whole system of real servers and real processes, and people who use it: what the tests of this package share.
//!
//! Tests wait for conditions ([`eventually()`], [`Device::expect`]), never for time.

pub mod allocations;
mod device;
mod eventually;
pub mod faults;
pub mod files_count;
pub mod history;
pub mod judge;
pub mod proxy;
mod sha256;
mod stored;
mod system;
pub mod system_of_one;
mod token;
pub mod workload;

pub use device::{Device, Heard};
pub use eventually::{PATIENCE, eventually};
pub use sha256::sha256;
pub use stored::Stored;
pub use system::{ExtraGateway, System, SystemOptions};
pub use token::{Identity, sign};
