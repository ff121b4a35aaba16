//! Stand-in until the real one is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexState {
    pub name: u64,
    pub next_entry: u32,
    pub bytes: u64,
    pub modified_ns: u64,
}
