//! The contract on a cluster. All cases share one, and run side by side: six servers a case would be too many.

use futures_util::StreamExt;
use tokio::runtime::Handle;

use crate::redis_cluster::RedisClusterOptions;
use crate::stores::{CLUSTER, Case};

/// Cases at a time.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_a_cluster() {
    let user = "user side on >secret ~case-* resetchannels &case-* +@all -@dangerous +info";
    let cluster = RedisClusterOptions::default().directive(user).start().await;
    CLUSTER.set(cluster.url_as("side:secret")).unwrap();
    let cases: Vec<Case> = [
        crate::appending::on_a_cluster(),
        crate::cancelling::on_a_cluster(),
        crate::claims::on_a_cluster(),
        crate::commanding::on_a_cluster(),
        crate::ending::on_a_cluster(),
        crate::following::on_a_cluster(),
        crate::interleavings::on_a_cluster(),
        crate::leases::on_a_cluster(),
        crate::locating::on_a_cluster(),
        crate::opening::on_a_cluster(),
        crate::producers::on_a_cluster(),
        crate::queueing::on_a_cluster(),
        crate::reading::on_a_cluster(),
        crate::recordings::on_a_cluster(),
        crate::retention::on_a_cluster(),
        crate::sharing::on_a_cluster(),
        crate::subjects::on_a_cluster(),
        crate::vanishing::on_a_cluster(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let all = cases.len();
    let outcomes = futures_util::stream::iter(cases).map(async |(name, case)| {
        // Some cases cannot move to another thread.
        let outcome = tokio::task::spawn_blocking(move || Handle::current().block_on(case())).await;
        (name, outcome.err())
    });
    let failed: Vec<_> =
        outcomes.buffer_unordered(AT_ONCE).filter_map(async |(name, error)| Some((name, error?))).collect().await;
    assert!(failed.is_empty(), "{} of {all} cases fail on a cluster: {failed:#?}", failed.len());
}
