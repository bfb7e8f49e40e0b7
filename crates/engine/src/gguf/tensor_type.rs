//! How the numbers of a tensor are stored.

/// Types of ggml that this engine reads: how the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// 32-bit floats.
    F32,
    /// IEEE 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    Bf16,
    /// 32 values of 4 bits and their scale.
    Q4_0,
    /// 32 values of 8 bits and their scale.
    Q8_0,
    /// 256 values of 4 bits in 8 groups, each with a 6-bit scale and minimum.
    Q4K,
    /// 256 values of 6 bits in 16 groups, each with an 8-bit scale.
    Q6K,
}

/// Every type that ggml has or had, by the number that stands in files.
const NAMES: &[(u32, &str)] = &[
    (0, "f32"),
    (1, "f16"),
    (2, "q4_0"),
    (3, "q4_1"),
    (4, "q4_2"),
    (5, "q4_3"),
    (6, "q5_0"),
    (7, "q5_1"),
    (8, "q8_0"),
    (9, "q8_1"),
    (10, "q2_K"),
    (11, "q3_K"),
    (12, "q4_K"),
    (13, "q5_K"),
    (14, "q6_K"),
    (15, "q8_K"),
    (16, "iq2_xxs"),
    (17, "iq2_xs"),
    (18, "iq3_xxs"),
    (19, "iq1_s"),
    (20, "iq4_nl"),
    (21, "iq3_s"),
    (22, "iq2_s"),
    (23, "iq4_xs"),
    (24, "i8"),
    (25, "i16"),
    (26, "i32"),
    (27, "i64"),
    (28, "f64"),
    (29, "iq1_m"),
    (30, "bf16"),
    (31, "q4_0_4_4"),
    (32, "q4_0_4_8"),
    (33, "q4_0_8_8"),
    (34, "tq1_0"),
    (35, "tq2_0"),
    (36, "iq4_nl_4_4"),
    (37, "iq4_nl_4_8"),
    (38, "iq4_nl_8_8"),
    (39, "mxfp4"),
    (40, "nvfp4"),
];

impl TensorType {
    /// Every type.
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q4_0, Self::Q8_0, Self::Q4K, Self::Q6K];

    /// The type with this number; the name of one that is not read.
    pub(super) fn from_id(id: u32) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.id() == id).ok_or_else(|| {
            match NAMES.iter().find(|(known, _)| *known == id) {
                Some((_, name)) => format!("`{name}`"),
                None => format!("number {id}"),
            }
        })
    }

    /// The number that stands in files (`enum ggml_type`).
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 30,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// As people write it.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(id, _)| *id == self.id()).map_or("unknown", |(_, name)| name)
    }

    /// Values of a block; rows hold whole blocks.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4K => 2 + 2 + 12 + 128,
            Self::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of a row of `columns` values; `None` when they fill no whole number of blocks.
    pub(crate) fn row_bytes(self, columns: usize) -> Option<usize> {
        let whole = columns.is_multiple_of(self.block_len());
        whole.then(|| (columns / self.block_len()).checked_mul(self.block_bytes()))?
    }
}
