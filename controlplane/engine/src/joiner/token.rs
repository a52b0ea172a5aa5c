//! Bootstrap tokens: random, in the seed before they are in the cluster.

use std::time::Duration;

use croft_core::cluster::Cluster as Row;
use croft_core::instance::Instance;
use croft_core::instance::seed::Seed;
use croft_core::join::cluster::BootstrapToken;
use croft_core::join::machine::{Node, Token};
use croft_core::join::node::{Wish, provider_id};
use croft_core::join::ports::Cluster;
use croft_core::join::seed::{Recipe, Ticket, equip, token_of};
use croft_core::{Error, Result, Timestamp};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::dress;

const ID: usize = 6;
const SECRET: usize = 16;
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// The token that `seed` has, or another one; put into it in any case, for the cluster may be reached otherwise by now.
pub(super) fn into_seed(
    seed: &mut Seed,
    instance: &Instance,
    node: &Node,
    wish: &Wish,
    on: (&Row, &dyn Cluster),
    recipe: &Recipe,
    until: Timestamp,
) -> Result<BootstrapToken> {
    let (row, handle) = on;
    let known = node.token.as_ref().map(|token| token.id.as_str());
    let (id, secret) = match token_of(seed).filter(|(id, _)| Some(id.as_str()) == known) {
        Some(both) => both,
        None => (random(ID)?, random(SECRET)?),
    };
    let token = BootstrapToken { id, secret, expires: until, description: instance.name() };
    let ticket = Ticket {
        token: token.clone(),
        anchor: handle.anchor().clone(),
        node_server: row.node_server.clone(),
        cluster_dns: row.cluster_dns.clone(),
        node: node.name.clone(),
        provider_id: provider_id(&instance.tenant, instance.uid),
        labels: wish.labels.clone(),
        taints: dress::first_taints(instance, wish),
    };
    equip(seed, &ticket, recipe);
    Ok(token)
}

pub(super) fn record_of(token: &BootstrapToken) -> Token {
    Token { id: token.id.clone(), expire_time: token.expires }
}

fn random(length: usize) -> Result<String> {
    let none = |_| Error::internal("the system gives no random numbers");
    let source = SystemRandom::new();
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 32];
        source.fill(&mut bytes).map_err(none)?;
        // 252 is a multiple of 36: each letter is as likely as the others.
        let letters = bytes.iter().filter(|byte| **byte < 252).map(|byte| char::from(LETTERS[usize::from(*byte) % 36]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

/// Up to a quarter less, so that those who failed together do not come back together.
pub(super) fn jitter(span: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without random numbers they do come back together.
    let _ = SystemRandom::new().fill(&mut byte);
    span - span / 1024 * u32::from(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_the_form_that_the_api_server_takes_and_never_the_same() {
        let token = || BootstrapToken {
            id: random(ID).unwrap(),
            secret: random(SECRET).unwrap(),
            expires: Timestamp(0),
            description: String::new(),
        };
        let many: std::collections::BTreeSet<String> = (0..1000)
            .map(|_| token())
            .inspect(|token| assert!(token.is_well_formed(), "{}", token.text()))
            .map(|token| token.secret)
            .collect();
        assert_eq!(many.len(), 1000);
    }

    #[test]
    fn a_pause_is_shortened_by_a_quarter_at_most() {
        for _ in 0..100 {
            let pause = jitter(Duration::from_secs(60));
            assert!((Duration::from_secs(45)..=Duration::from_secs(60)).contains(&pause), "{pause:?}");
        }
    }
}
