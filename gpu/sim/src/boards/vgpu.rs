//! The vGPU types of a board, from tables that come with this crate.
//!
//! Names, sizes and counts are NVIDIA's; the **ids** are the simulator's where the tables do not say that somebody saw them:
//! they change from release to release, and nobody should keep one.

/// What a virtual function can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VgpuType {
    pub id: u32,
    /// `H100XM-2-20C`; the driver writes `NVIDIA ` before it.
    pub name: String,
    /// Nominal, in GiB.
    pub framebuffer_gib: u32,
    /// The most of them at once on one GPU.
    pub max: u32,
    pub kind: VgpuKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VgpuKind {
    /// Shares the whole GPU in turns. `max` counts where all are of one size.
    TimeSliced { max_mixed: u32 },
    /// Stands on a GPU instance of this profile.
    MigBacked { profile: String },
}

static HOPPER: &str = include_str!("../../data/vgpu_types_hopper.tsv");
static OTHERS: &str = include_str!("../../data/vgpu_types_others.tsv");

/// The types of a Hopper board. Ids as NVIDIA numbered those of the H200 SXM: MIG-backed ones by size, time-sliced ones by size,
/// those with media engines.
pub(super) fn hopper_types(prefix: &str, first_id: u32) -> Vec<VgpuType> {
    let mut types: Vec<_> = rows(HOPPER, prefix).map(|row| row.vgpu_type(prefix, 0)).collect();
    types.sort_by_key(|vgpu| {
        let compute = vgpu.name.split('-').nth(1).and_then(|slices| slices.parse::<u32>().ok());
        let rank = match vgpu.kind {
            VgpuKind::MigBacked { .. } if vgpu.name.ends_with("ME") => 2,
            VgpuKind::MigBacked { .. } => 0,
            VgpuKind::TimeSliced { .. } => 1,
        };
        (rank, vgpu.framebuffer_gib, compute)
    });
    for (vgpu, id) in types.iter_mut().zip(first_id..) {
        vgpu.id = id;
    }
    types
}

/// The types of any other board, with the ids of the table.
pub(super) fn other_types(prefix: &str) -> Vec<VgpuType> {
    rows(OTHERS, prefix).map(|row| row.vgpu_type(prefix, row.number(7))).collect()
}

/// A line of a table: boards, kind, suffix, framebuffer, max, max mixed, profile, id.
struct Row<'a>(Vec<&'a str>);

fn rows<'a>(table: &'a str, prefix: &'a str) -> impl Iterator<Item = Row<'a>> {
    let lines = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    let rows = lines.map(|line| Row(line.split('\t').collect()));
    rows.filter(move |row| row.0[0] == prefix || row.0[0].split(' ').any(|board| board == prefix))
}

impl Row<'_> {
    fn vgpu_type(&self, prefix: &str, id: u32) -> VgpuType {
        let kind = match self.0[1] {
            "mig" => VgpuKind::MigBacked { profile: self.0[6].to_owned() },
            _ => VgpuKind::TimeSliced { max_mixed: self.number(5) },
        };
        let name = format!("{prefix}-{}", self.0[2]);
        VgpuType { id, name, framebuffer_gib: self.number(3), max: self.number(4), kind }
    }

    fn number(&self, column: usize) -> u32 {
        let cell = self.0.get(column).copied().unwrap_or_default();
        cell.parse().unwrap_or_else(|_| panic!("column {column} of {:?} is no number", self.0))
    }
}
