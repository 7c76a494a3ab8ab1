//! What becomes of a message that would begin a run while its route is busy.

/// What a `send` does whose route has an active root run, or others that wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BusyPolicy {
    /// It begins beside the others.
    Parallel,
    /// It waits its turn.
    #[default]
    Queue,
    /// The others are cancelled, then it begins.
    Interrupt,
    /// It is refused.
    Reject,
}

impl BusyPolicy {
    /// Every policy.
    pub const ALL: [BusyPolicy; 4] =
        [BusyPolicy::Parallel, BusyPolicy::Queue, BusyPolicy::Interrupt, BusyPolicy::Reject];

    /// The policy's name on the wire and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            BusyPolicy::Parallel => "parallel",
            BusyPolicy::Queue => "queue",
            BusyPolicy::Interrupt => "interrupt",
            BusyPolicy::Reject => "reject",
        }
    }

    /// The policy with this name.
    pub fn parse(name: &str) -> Option<Self> {
        BusyPolicy::ALL.into_iter().find(|policy| policy.as_str() == name)
    }
}
