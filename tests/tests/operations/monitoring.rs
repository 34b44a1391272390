//! What is shipped for Prometheus and Grafana, against a real Prometheus that watches a running system.

mod dashboards;
mod names;
mod prometheus;
mod queries;
mod rules;
mod traffic;
