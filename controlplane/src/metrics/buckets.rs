//! Where the interesting differences are.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Calls and commits: a millisecond to a minute.
pub fn quick() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

/// Machines that start and stop: a tenth of a second to a day.
pub fn slow() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0])
}

/// How many went together: 1 to 256.
pub fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}
