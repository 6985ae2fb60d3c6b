use bytes::Bytes;

use crate::chain::{Permission, PermissionKind};
use crate::state::Span;
use crate::state::auth::Access;

/// The keys from the first up to, not including, the second; none for the end of all keys.
type Interval = (Bytes, Option<Bytes>);

/// What a user's roles allow, merged: disjoint intervals in order, none touching the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    read: Vec<Interval>,
    write: Vec<Interval>,
}

impl Rights {
    pub(super) fn of<'a>(permissions: impl Iterator<Item = &'a Permission> + Clone) -> Self {
        let merged = |forbidden: PermissionKind| {
            let allowed = permissions.clone().filter(|permission| permission.kind != forbidden);
            merge(allowed.map(interval).collect())
        };
        Self { read: merged(PermissionKind::Write), write: merged(PermissionKind::Read) }
    }

    /// Whether one merged interval covers all of the span (etcd: auth/range_perm_cache.go over
    /// pkg/adt). A span whose end lies before its start names no key, and is allowed, as etcd does, if
    /// its start is.
    pub(super) fn permit(&self, span: Span<'_>, access: Access) -> bool {
        let intervals = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        let behind = intervals.partition_point(|(start, _)| *start <= span.start());
        let Some((_, end)) = behind.checked_sub(1).and_then(|at| intervals.get(at)) else {
            return false;
        };
        match (span, end) {
            (_, None) => true,
            (Span::One(key), Some(end)) => key < &end[..],
            (Span::Until(key, until), Some(end)) => key < &end[..] && until <= &end[..],
            (Span::From(_), Some(_)) => false,
        }
    }
}

fn interval(permission: &Permission) -> Interval {
    let key = &permission.key;
    let end = match Span::new(key, &permission.range_end) {
        Span::One(key) => Some([key, &[0]].concat().into()),
        Span::Until(_, end) => Some(Bytes::copy_from_slice(end)),
        Span::From(_) => None,
    };
    (key.clone(), end)
}

fn merge(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort();
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for (start, end) in intervals {
        match merged.last_mut() {
            Some((_, None)) => break,
            Some((_, last)) if last.as_ref().is_some_and(|last| *last >= start) => {
                *last = match (last.take(), end) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    _ => None,
                };
            }
            _ => merged.push((start, end)),
        }
    }
    merged
}
