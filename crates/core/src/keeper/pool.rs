//! One of a host's pools: how many idle channels it is to hold. Driven by the [`Keeper`](super::Keeper).

/// How many idle channels a pool may hold, those under way to their answer among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBounds {
    /// So many are held unless the relay asks for more: at least 1.
    pub min: usize,
    /// However many it asks for. Not below the other. As many again may come back from sessions.
    pub max: usize,
}

impl PoolBounds {
    /// Between so many, made sound.
    pub fn new(min: usize, max: usize) -> PoolBounds {
        let min = min.max(1);
        PoolBounds { min, max: max.max(min) }
    }
}

impl Default for PoolBounds {
    /// Ten, as the original holds. A burst of 500 clients is served within a few round trips by 256, which are replaced as they are
    /// taken, and do not exhaust the descriptors of a process that may have 1,024.
    fn default() -> PoolBounds {
        PoolBounds { min: 10, max: 256 }
    }
}

/// The channels for one service.
pub(super) struct Pool {
    bounds: PoolBounds,
    /// How many the relay asked for last.
    wanted: Option<usize>,
    is_paused: bool,
    /// How many are held: idle, or under way.
    pub(super) held: usize,
    /// The fewest that were too many at any moment of the span that is looked at.
    spare: usize,
    /// How many the relay was told to close last, and has not closed yet.
    told: usize,
    /// The same of the time before.
    told_before: usize,
}

impl Pool {
    pub(super) fn new(bounds: PoolBounds) -> Pool {
        let bounds = PoolBounds::new(bounds.min, bounds.max);
        Pool { bounds, wanted: None, is_paused: false, held: 0, spare: 0, told: 0, told_before: 0 }
    }

    pub(super) fn bounds(&self) -> PoolBounds {
        self.bounds
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) fn set_wanted(&mut self, idle: usize) {
        self.wanted = Some(idle);
    }

    /// Another relay may have other wishes.
    pub(super) fn forget_wanted(&mut self) {
        self.wanted = None;
    }

    pub(super) fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// How many it is to hold.
    pub(super) fn target(&self) -> usize {
        let PoolBounds { min, max } = self.bounds;
        if self.is_paused { 0 } else { self.wanted.map_or(min, |wanted| wanted.clamp(min, max)) }
    }

    pub(super) fn lacking(&self) -> usize {
        self.target().saturating_sub(self.held)
    }

    /// Whether one that has carried a session has a place here, wanted or not.
    pub(super) fn has_place(&self) -> bool {
        self.held < self.bounds.max.saturating_mul(2)
    }

    /// Whether it holds more than can be explained by sessions that ended at the same time.
    pub(super) fn is_overfull(&self) -> bool {
        self.held >= self.bounds.max.saturating_mul(4)
    }

    pub(super) fn excess(&self) -> usize {
        self.held.saturating_sub(self.target())
    }

    /// Whether there are more than it is to hold, or the relay is closing some.
    pub(super) fn has_surplus(&self) -> bool {
        self.excess() + self.told + self.told_before > 0
    }

    /// A span begins in which it shows how many of those that are too many are never needed.
    pub(super) fn begin_span(&mut self) {
        self.spare = self.excess();
    }

    /// Something may have been used, or has come.
    pub(super) fn look_at_spare(&mut self) {
        self.spare = self.spare.min(self.excess());
    }

    /// The span is over. Gives how many the relay is to be told to close: one in `parts` of those that were too many all the while, without
    /// what it may be closing already. What it was told before the last time, and has not closed, it has given to clients.
    pub(super) fn end_span(&mut self, parts: usize) -> usize {
        let spare = self.spare.saturating_sub(self.told + self.told_before);
        let surplus = spare.div_ceil(parts);
        (self.told_before, self.told) = (self.told, surplus);
        surplus
    }

    /// A channel was lost. Gives whether the relay was told to close one.
    pub(super) fn take_told(&mut self) -> bool {
        let told = if self.told_before > 0 { &mut self.told_before } else { &mut self.told };
        let was_told_to = *told > 0;
        *told = told.saturating_sub(1);
        was_told_to
    }

    /// Another relay was told nothing.
    pub(super) fn forget_surplus(&mut self) {
        (self.told, self.told_before) = (0, 0);
    }
}
