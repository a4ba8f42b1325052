//! A draft: a cheap clone of a folded state into which each new fact is folded at once, so that a later
//! decision of the same batch sees an earlier one. On any doubt the draft is dropped; nothing is ever reverted.

/// A state that folds facts.
pub trait Fold: Clone {
    /// The fact type.
    type Fact: Clone;

    /// Folds one fact that was just decided. A decider pushes legal facts only; an illegal one is a broken
    /// invariant and may panic.
    fn fold(&mut self, fact: &Self::Fact);
}

/// State, and the facts that led to it from where the draft began.
#[derive(Debug, Clone)]
pub struct Draft<S: Fold> {
    state: S,
    facts: Vec<S::Fact>,
}

impl<S: Fold> Draft<S> {
    /// Begins at a committed state.
    #[must_use]
    pub fn new(state: S) -> Self {
        Self { state, facts: Vec::new() }
    }

    /// The state with every pushed fact folded.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Facts pushed so far.
    #[must_use]
    pub fn facts(&self) -> &[S::Fact] {
        &self.facts
    }

    /// Records a fact and folds it at once.
    pub fn push(&mut self, fact: S::Fact) {
        self.state.fold(&fact);
        self.facts.push(fact);
    }

    /// Runs a decision; an `Err` leaves no trace in the draft.
    ///
    /// # Errors
    /// The decision's own.
    pub fn attempt<T, E>(&mut self, decision: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let (state, length) = (self.state.clone(), self.facts.len());
        let outcome = decision(self);
        if outcome.is_err() {
            self.state = state;
            self.facts.truncate(length);
        }
        outcome
    }

    /// The facts, ready to be written.
    #[must_use]
    pub fn into_facts(self) -> Vec<S::Fact> {
        self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Sum(u32);

    impl Fold for Sum {
        type Fact = u32;
        fn fold(&mut self, fact: &u32) {
            self.0 += fact;
        }
    }

    #[test]
    fn a_failed_attempt_leaves_no_trace() {
        let mut draft = Draft::new(Sum(1));
        draft.push(2);
        let outcome: Result<(), &str> = draft.attempt(|d| {
            d.push(10);
            Err("no")
        });
        assert_eq!(outcome, Err("no"));
        assert_eq!(draft.state(), &Sum(3));
        assert_eq!(draft.into_facts(), vec![2]);
    }
}
