//! The command line: global options and the list of nouns. What a noun's verbs take is in the noun's own file.

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::apply;
use crate::noun::{
    audit, cluster, context, device, event, gpu, host, image, instance, network, operation, pool, quota, tenant, token,
};
use crate::output::Format;

#[derive(Debug, Parser)]
#[command(
    name = "croft",
    version = croft_program::version(),
    about = "Virtual machines with devices, for tenants with quota.",
    after_help = "Examples:\n  \
        croft context set prod --server plane:7443 --ca-file ca.pem --token-file token --tenant acme\n  \
        croft instance create web --image debian-13 --vcpus 2 --memory 2GiB --disk 6GiB --wait\n  \
        croft instance ssh web\n\n\
        Exit codes: 0 ok, 1 error, 2 wrong request, 3 not found, 4 denied or over quota,\n\
        5 timeout, 6 unavailable.",
    disable_help_subcommand = true,
    propagate_version = false
)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub noun: Noun,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How to print the result.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true,
        help = "How to print: table, wide, json, yaml or name"
    )]
    pub output: Format,
    /// The context to use instead of the current one [env: CROFT_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The tenant to act in, instead of the context's [env: CROFT_TENANT]
    #[arg(short = 't', long, global = true, value_name = "TENANT")]
    pub tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Virtual machines: create, watch, log in
    #[command(subcommand, visible_alias = "vm")]
    Instance(instance::Command),
    /// What instances boot from
    #[command(subcommand)]
    Image(image::Command),
    /// Networks that operators define and grant
    #[command(subcommand)]
    Network(network::Command),
    /// The tree of tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Limits, and what is used of them
    #[command(subcommand)]
    Quota(quota::Command),
    /// API tokens of people and programs
    #[command(subcommand)]
    Token(token::Command),
    /// The machines underneath
    #[command(subcommand)]
    Host(host::Command),
    /// GPUs of the hosts, what is cut of them, and where a piece could be had
    #[command(subcommand)]
    Gpu(gpu::Command),
    /// Devices of the hosts: GPUs, PCI functions, USB
    #[command(subcommand)]
    Device(device::Command),
    /// Sets of interchangeable devices that tenants are granted
    #[command(subcommand)]
    Pool(pool::Command),
    /// Kubernetes clusters whose nodes instances may become
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The work behind a change
    #[command(subcommand)]
    Operation(operation::Command),
    /// What happened
    #[command(subcommand)]
    Event(event::Command),
    /// Who did what
    #[command(subcommand)]
    Audit(audit::Command),
    /// Bring tenants, quotas, networks, pools, images, clusters and instances to what files say
    Apply(apply::Apply),
    /// Planes that this machine knows
    #[command(subcommand)]
    Context(context::Command),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  source <(croft completion bash)")]
    Completion {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Write man pages and completions into a directory
    #[command(hide = true)]
    Manual(croft_program::Manual),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_verb_says_what_it_does() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no help text");
                check(sub, &path);
            }
        }
        check(&Args::command(), "croft");
    }
}
