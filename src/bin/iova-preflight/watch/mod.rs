//! The service that looks at every guest when it is defined.

mod agenda;
mod backoff;
mod journal;
mod manager;
mod metrics;
mod service;

pub(crate) use service::run;
