//! The addresses of a name, as endpoints.

use std::sync::Arc;

use futures::stream;
use meshlib::Endpoint;
use meshlib::Resolution;
use meshlib::Resolver;
use meshlib::Update;
use meshlib::dtab::path::Path;
use meshlib::resolve::ResolveError;

use crate::api::Addr;
use crate::bind::Bound;
use crate::client::Mode;
use crate::client::Namerd;
use crate::client::OnNegative;
use crate::client::Target;
use crate::follow::Answer;
use crate::follow::Follow;
use crate::follow::NEGATIVE;
use crate::follow::addr;

impl<T: AsRef<str>> Resolver<T> for Namerd {
    fn resolve(&self, target: T) -> Resolution {
        let name: Arc<str> = target.as_ref().into();
        if Path::parse(&name).is_err() {
            return Resolution::new(stream::iter([Err(ResolveError::Name { name })]));
        }
        let namerd = self.clone();
        let updates = Updates { on_negative: self.options.on_negative, last: None, failing: false };
        match self.options.mode {
            Mode::Resolve => Resolution::new(stream::unfold(None::<(Follow<Addr>, Updates)>, move |state| {
                let (namerd, name, updates) = (namerd.clone(), Arc::clone(&name), updates.clone());
                async move {
                    let (mut follow, mut updates) = state.unwrap_or_else(|| {
                        let target = Target::new("resolve", &namerd.options.namespace, &name);
                        (Follow::new(namerd.asker(), target, namerd.options.clone(), addr), updates)
                    });
                    let item = loop {
                        if let Some(item) = updates.next(follow.next().await, &name) {
                            break item;
                        }
                    };
                    Some((item, Some((follow, updates))))
                }
            })),
            Mode::Bind => Resolution::new(stream::unfold(None::<(Bound, Updates)>, move |state| {
                let (namerd, name, updates) = (namerd.clone(), Arc::clone(&name), updates.clone());
                async move {
                    let (mut bound, mut updates) =
                        state.unwrap_or_else(|| (Bound::new(&namerd, &name), updates));
                    let item = loop {
                        if let Some(item) = updates.next(bound.next().await, &name) {
                            break item;
                        }
                    };
                    Some((item, Some((bound, updates))))
                }
            })),
        }
    }
}

/// Makes updates of answers: says nothing twice, unless after a failure, and keeps what is good.
#[derive(Clone)]
pub(crate) struct Updates {
    on_negative: OnNegative,
    last: Option<Update>,
    failing: bool,
}

impl Updates {
    /// What a balancer should be told, if anything.
    fn next(
        &mut self,
        answer: Result<Addr, ResolveError>,
        name: &Arc<str>,
    ) -> Option<Result<Update, ResolveError>> {
        let result = answer.and_then(|addr| self.usable(addr, name));
        let was_failing = std::mem::replace(&mut self.failing, result.is_err());
        let update = match result {
            Ok(update) => update,
            Err(error) => return Some(Err(error)),
        };
        if self.last.as_ref() == Some(&update) && !was_failing {
            return None;
        }
        self.last = Some(update.clone());
        Some(Ok(update))
    }

    fn usable(&self, addr: Addr, name: &Arc<str>) -> Result<Update, ResolveError> {
        let undecided = |reason: String| Err(ResolveError::Undecided { name: Arc::clone(name), reason });
        match addr {
            Addr::Bound { .. } => Ok(Update::endpoints(sorted(addr.endpoints()))),
            Addr::Neg => match (&self.last, self.on_negative) {
                (Some(Update::Endpoints(_)), OnNegative::Keep) => undecided(NEGATIVE.into()),
                _ => Ok(Update::NotFound),
            },
            addr => undecided(addr.unusable().unwrap_or_default()),
        }
    }
}

/// The order of addresses means nothing to namerd; sorted, equal sets are equal.
fn sorted(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_by(|a, b| a.addr.cmp(&b.addr).then(a.weight.get().total_cmp(&b.weight.get())));
    endpoints
}
