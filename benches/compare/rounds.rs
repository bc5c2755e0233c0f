//! Interleaved rounds: every contender once per round, in an order that rotates.
//!
//! The machine's speed drifts by more than the differences of interest. Samples that lie side by side in time
//! see the same machine.

use crate::cli::Options;
use crate::host::Policy;
use crate::peer::Field;
use crate::report::{FOREIGN, Measured};
use crate::sample::{self, Sample, Timing};
use crate::stage::Stage;
use crate::verify::Verified;
use crate::workload::{Load, Workload};

/// Measures one workload.
pub(crate) fn measure(
    stage: &Stage,
    workload: Workload,
    field: &Field,
    verified: &mut Verified,
    options: &Options,
) -> Measured {
    let mut measured = Measured { workload, rows: Vec::new(), left_out: Vec::new() };
    for peer in field.peers.iter().filter(|peer| peer.can(&workload)) {
        match verified.check(stage, peer, workload.profile) {
            Ok(()) => measured.rows.push((peer.clone(), Vec::new())),
            Err(reason) => measured.left_out.push((peer.name.clone(), reason)),
        }
    }
    for round in 0..options.rounds {
        for place in 0..measured.rows.len() {
            let count = measured.rows.len();
            let (peer, samples) = &mut measured.rows[(round + place) % count];
            eprintln!("{} round {} of {}: {}", workload.name, round + 1, options.rounds, peer.name);
            let take = || {
                let timing = Timing { warm_up: options.warm_up, window: options.window };
                sample::take(stage, &workload, peer, round, timing)
            };
            let taken = match take() {
                Ok(first) if is_disturbed(&workload, &first) => take().map(|second| calmer(first, second)),
                other => other,
            };
            match taken {
                Ok(sample) => samples.push(sample),
                Err(error) => {
                    measured.left_out.push((peer.name.clone(), format!("round {}: {error}", round + 1)))
                }
            }
        }
    }
    measured
}

/// Closed loops want the whole core; a sample that had to share it is taken once more.
fn is_disturbed(workload: &Workload, sample: &Sample) -> bool {
    let closed = workload.load != Load::Idle && workload.load.policy() == Policy::Throughput;
    closed && sample.foreign > FOREIGN
}

fn calmer(first: Sample, second: Sample) -> Sample {
    if second.foreign < first.foreign { second } else { first }
}
