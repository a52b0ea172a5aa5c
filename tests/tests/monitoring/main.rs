//! What `monitoring/` ships works when it is installed: a real Prometheus reads a whole fleet with the shipped configuration,
//! every rule and every panel of every dashboard finds data there, and docs/metrics.md says exactly what was found.
//!
//! Needs Debian's package `prometheus`; says so where it is missing, and fails in CI. What needs no Prometheus runs anyway.

mod contract;
mod dashboards;
mod numbers;
mod promtool;
mod rules;
mod runbooks;
mod site;

use croft_tests::prometheus;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_shipped_finds_data_in_a_real_fleet() {
    if !prometheus::is_installed() {
        return;
    }
    let site = site::Site::open().await;
    for (whose, page) in site.pages().await {
        promtool::check_metrics(whose, &page);
    }
    contract::the_page_says_what_is_exported(&site).await;
    rules::all_are_well(&site).await;
    numbers::are_true(&site).await;
    dashboards::every_panel_has_data(&site).await;
    site.close().await;
}
