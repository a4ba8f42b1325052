//! Compression of a batch's records: none, lz4 frames, zstd. Bounded both ways.
//!
//! Owns: the codecs and their code in the attributes; decompression under an absolute and a ratio cap.
//! Never: allocates from a frame's announced content size, or beyond its cap; decodes gzip or snappy (refused
//! by name, so that nobody stores a batch that a consumer of ours cannot read).
//! Invariant: memory grows with output that was really produced, at most one step past the cap.

use std::io::{Read, Write};

use super::limits::{DECOMPRESSION_STEP_BYTES, ZSTD_LEVEL, ZSTD_WINDOW_LOG_MAX};
use super::{BatchError, Limits};

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// An lz4 frame with independent 64 KiB blocks, as Kafka's clients expect.
    Lz4,
    /// A zstd frame.
    Zstd,
}

impl Compression {
    /// Code in the attributes.
    pub fn code(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// Name as in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// From the code in the attributes; a typed error for codecs that are known but not supported.
    pub fn from_code(code: u8) -> Result<Self, BatchError> {
        let name = match code {
            0 => return Ok(Compression::None),
            3 => return Ok(Compression::Lz4),
            4 => return Ok(Compression::Zstd),
            1 => "gzip",
            2 => "snappy",
            _ => "unknown",
        };
        Err(BatchError::UnsupportedCompression { code, name })
    }

    fn failed(self, error: impl ToString) -> BatchError {
        BatchError::Decompression { codec: self.name(), what: error.to_string() }
    }

    /// Compresses `plain`; `Compression::None` copies it.
    pub(super) fn compress(self, plain: &[u8]) -> Result<Vec<u8>, BatchError> {
        match self {
            Compression::None => Ok(plain.to_vec()),
            Compression::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                out.write_all(plain).map_err(|e| self.failed(e))?;
                out.finish().map_err(|e| self.failed(e))
            }
            Compression::Zstd => zstd::stream::encode_all(plain, ZSTD_LEVEL).map_err(|e| self.failed(e)),
        }
    }

    /// Decompresses `packed` under the caps of `limits`.
    pub(super) fn decompress(self, packed: &[u8], limits: &Limits) -> Result<Vec<u8>, BatchError> {
        let cap = limits.decoded_cap(packed.len());
        match self {
            Compression::None => Ok(packed.to_vec()),
            Compression::Lz4 => self.drain(lz4_flex::frame::FrameDecoder::new(packed), packed.len(), cap),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| self.failed(e))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| self.failed(e))?;
                self.drain(decoder, packed.len(), cap)
            }
        }
    }

    fn drain(self, mut decoder: impl Read, compressed: usize, cap: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        loop {
            let start = out.len();
            out.resize(start + DECOMPRESSION_STEP_BYTES, 0);
            let got = decoder.read(&mut out[start..]).map_err(|e| self.failed(e))?;
            out.truncate(start + got);
            if got == 0 {
                return Ok(out);
            }
            if out.len() > cap {
                return Err(BatchError::Bomb { compressed, limit: cap });
            }
        }
    }
}
