//! What must hold for a service to be ready: named conditions, each set by the part that knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// The conditions of one service. Cheap to clone; all clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// What does not hold has its reason.
    states: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One condition, in the hands of the part that sets it.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    conditions: Conditions,
}

/// A condition as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionState {
    /// Whether it holds.
    pub ok: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Conditions {
    /// Adds a condition that does not hold until it is set. Asking again for the same name gives the same
    /// condition, which starts over.
    pub fn require(&self, name: &'static str) -> Condition {
        self.states.lock().insert(name, Some("not known yet".to_owned()));
        Condition {
            name,
            conditions: self.clone(),
        }
    }

    /// Whether all conditions hold.
    pub fn hold(&self) -> bool {
        self.states.lock().values().all(Option::is_none)
    }

    /// Every condition by name.
    pub fn states(&self) -> BTreeMap<&'static str, ConditionState> {
        let states = self.states.lock();
        states
            .iter()
            .map(|(name, reason)| {
                (
                    *name,
                    ConditionState {
                        ok: reason.is_none(),
                        reason: reason.clone(),
                    },
                )
            })
            .collect()
    }
}

impl Condition {
    /// The condition holds.
    pub fn holds(&self) {
        if self.replace(None) {
            tracing::info!(condition = self.name, "condition holds");
        }
    }

    /// The condition does not hold, for this reason.
    pub fn fails(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.replace(Some(reason.clone())) {
            tracing::warn!(condition = self.name, reason, "condition does not hold");
        }
    }

    /// Sets it to what `state` says.
    pub fn set<E: std::fmt::Display>(&self, state: &Result<(), E>) {
        match state {
            Ok(()) => self.holds(),
            Err(reason) => self.fails(reason.to_string()),
        }
    }

    /// Whether it holds.
    pub fn is_held(&self) -> bool {
        self.conditions
            .states
            .lock()
            .get(self.name)
            .is_some_and(Option::is_none)
    }

    /// Whether anything changed.
    fn replace(&self, reason: Option<String>) -> bool {
        let mut states = self.conditions.states.lock();
        let before = states.insert(self.name, reason.clone());
        before != Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold() {
        let conditions = Conditions::default();
        assert!(conditions.hold());
        let nats = conditions.require("nats");
        assert!(!conditions.hold(), "what is not known yet does not hold");
        let postgres = conditions.require("postgres");
        nats.holds();
        assert!(!conditions.hold());
        postgres.holds();
        assert!(conditions.hold());
        nats.fails("disconnected");
        assert!(!conditions.hold());
        let states = serde_json::to_string(&conditions.states()).expect("plain data serializes");
        assert_eq!(
            states,
            r#"{"nats":{"ok":false,"reason":"disconnected"},"postgres":{"ok":true}}"#
        );
    }
}
