//! What the programs have in common: arguments, configuration files, logs, the admin address with its pages and
//! dashboard, workers, signals and the service manager. A program's own folder has only what is its own.

pub mod about;
pub mod admin;
pub mod cli;
pub mod control;
pub mod dashboard;
pub mod ending;
pub mod limits;
pub mod load;
pub mod loading;
pub mod log;
pub mod manager;
pub mod metrics;
pub mod moment;
pub mod probe;
pub mod reasons;
pub mod signals;
pub mod sockets;
pub mod state;
pub mod units;
pub mod workers;
