//! What is wrong with the tags of instances, as it is shown until they are mended.

use std::sync::Arc;

use meshlib_consul::Instance;
use serde_json::Value;

use super::backend::Known;

/// Most problems that are shown; beyond it they are counted.
const MOST: usize = 200;

/// What is wrong with tags.
#[derive(Clone, Debug, Default)]
pub(super) struct TagProblems {
    /// How many instances have such tags.
    pub(super) instances: usize,
    /// How many problems are not shown.
    pub(super) left_off: usize,
    /// The first of them, by service, node and id.
    shown: Vec<(Arc<Instance>, String)>,
}

impl TagProblems {
    /// What is wrong with the tags of these instances.
    pub(super) fn of<'a>(known: impl Iterator<Item = &'a Known>) -> Self {
        let mut wrong: Vec<_> = known.filter(|known| !known.registration.problems.is_empty()).collect();
        wrong.sort_by(|a, b| order(&a.instance).cmp(&order(&b.instance)));
        let all: usize = wrong.iter().map(|known| known.registration.problems.len()).sum();
        let problems = wrong.iter().flat_map(|known| {
            known
                .registration
                .problems
                .iter()
                .map(|problem| (Arc::clone(&known.instance), problem.to_string()))
        });
        let shown: Vec<_> = problems.take(MOST).collect();
        Self { instances: wrong.len(), left_off: all - shown.len(), shown }
    }

    /// A line that says that there are some.
    pub(super) fn line(&self) -> Option<String> {
        match self.instances {
            0 => None,
            1 => {
                Some("1 instance has tags that cannot be used as they are; see tag_problems in /rules".into())
            }
            n => Some(format!(
                "{n} instances have tags that cannot be used as they are; see tag_problems in /rules"
            )),
        }
    }

    /// Each that is shown.
    pub(super) fn shown(&self) -> Vec<Value> {
        let each = self.shown.iter().map(|(instance, problem)| {
            let Instance { service, node, id, .. } = &**instance;
            serde_json::json!({ "service": &**service, "node": &**node, "id": &**id, "problem": problem })
        });
        each.collect()
    }
}

fn order(instance: &Instance) -> (&str, &str, &str) {
    (&instance.service, &instance.node, &instance.id)
}
