//! Which device answers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{EngineError, Result};

/// What requests are computed on. Training and embeddings are computed on the processor, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ComputeDevice {
    /// The processor, with the kernels of this crate.
    #[default]
    Cpu,
    /// The CUDA device with this number.
    Cuda(usize),
}

impl ComputeDevice {
    /// Tries the device. `Unavailable` when this build has none of its kind, or there is none of its number.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Self::Cuda(number) => crate::accelerated::cuda(number).map(drop),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(number) => Err(EngineError::without_cuda(number)),
        }
    }
}

impl FromStr for ComputeDevice {
    type Err = EngineError;

    /// `cpu`, `cuda` (the first device) or `cuda:N`. `Invalid` for anything else.
    fn from_str(name: &str) -> Result<Self> {
        let device = match name.split_once(':') {
            None if name == "cpu" => Some(Self::Cpu),
            None if name == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse::<u16>().ok().map(|number| Self::Cuda(number.into())),
            _ => None,
        };
        device.ok_or_else(|| {
            let expected = "it must be `cpu`, `cuda` or `cuda:` and the number of a device";
            EngineError::Request(format!("there is no device `{name}`; {expected}"))
        })
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Serialize for ComputeDevice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ComputeDevice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_pytorch_names_them() {
        for (name, device) in [
            ("cpu", ComputeDevice::Cpu),
            ("cuda", ComputeDevice::Cuda(0)),
            ("cuda:3", ComputeDevice::Cuda(3)),
        ] {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for name in ["", "CPU", "cuda:", "cuda:-1", "cuda:x", "cuda:0:1", "cpu:0", "metal", "cuda:70000"] {
            let error = name.parse::<ComputeDevice>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }
}
