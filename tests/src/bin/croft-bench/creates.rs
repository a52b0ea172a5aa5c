//! Creates a second through the whole path: TLS, gRPC, authentication, placement, one durable commit.

use std::time::{Duration, Instant};

use croft_core::host::{Capacity, Cell};
use croft_proto::v1::instance_spec::Power;
use croft_tests::{Fleet, Wanted};

use crate::raw;

pub async fn run(creates: usize, clients: &[usize], hosts: usize) -> anyhow::Result<()> {
    let fleet = Fleet::start().await;
    for n in 0..hosts {
        fleet.silent_host(&format!("h{n}"), roomy()).await?;
    }
    let raw = raw::commits_per_second(fleet.directory(), creates).await?;
    println!("raw commits of one row, SQLite WAL, synchronous FULL: {raw:.0}/s");
    println!("{:>8} {:>12} {:>10} {:>14} {:>14}", "clients", "creates/s", "of raw", "median", "slowest");
    for &count in clients {
        let mut tasks = tokio::task::JoinSet::new();
        let began = Instant::now();
        for client in 0..count {
            let api = fleet.another_client();
            tasks.spawn(async move {
                let mut spent: Vec<Duration> = Vec::new();
                for n in (client..creates).step_by(count) {
                    let wanted = Wanted { power: Power::Stopped, ..Wanted::default() };
                    let began = Instant::now();
                    api.create_as(wanted.request("acme", &format!("c{count}-{n}"))).await?;
                    spent.push(began.elapsed());
                }
                Ok::<_, tonic::Status>(spent)
            });
        }
        let mut spent = Vec::new();
        while let Some(done) = tasks.join_next().await {
            spent.extend(done??);
        }
        let rate = spent.len() as f64 / began.elapsed().as_secs_f64();
        spent.sort();
        let (median, slowest) = (spent[spent.len() / 2], spent[spent.len() - 1]);
        println!("{count:>8} {rate:>12.0} {:>9.2}x {median:>14.1?} {slowest:>14.1?}", rate / raw);
    }
    fleet.consistent().await;
    fleet.end().await;
    Ok(())
}

fn roomy() -> Capacity {
    let cores = (0..128).map(|core| vec![2 * core, 2 * core + 1]).collect();
    let memory_mib = 2 * 1024 * 1024;
    Capacity {
        cells: vec![Cell { id: 0, cores, memory_mib, huge_pages: Default::default() }],
        vcpus: 256,
        memory_mib,
        disk_gib: 100_000,
        disk_free_gib: 100_000,
    }
}
