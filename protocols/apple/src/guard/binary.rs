//! The binary form, `bplist00` (Apple's CFBinaryPList.c).

use std::ops::Range;

use plist::{Date, Value};

use super::{Builder, Limits};
use crate::Error;

const HEADER: &[u8] = b"bplist00";
const TRAILER_BYTES: usize = 32;
/// Seconds between 1970 and 2001, the epoch of dates.
const EPOCH: u64 = 978_307_200;
/// Beyond this many seconds from the epoch (some 30,000 years) a date is not even computed. Which dates
/// are sound is the builder's question, so that both forms answer it alike.
const MAX_DATE_SECONDS: f64 = 1.0e12;

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    let file = File::open(bytes)?;
    let mut builder = Builder::new(limits);
    let mut unfolded = 0_usize;
    let mut steps = vec![Step::Value(file.top)];
    while let Some(step) = steps.pop() {
        let object = match step {
            Step::End => {
                builder.end()?;
                continue;
            }
            Step::Key(index) => {
                let Object::Scalar(Value::String(name)) = file.object(index, limits)? else {
                    return Err(Error::Binary("a key is not a string"));
                };
                spend(&mut unfolded, name.len(), limits)?;
                builder.key(name)?;
                continue;
            }
            Step::Value(index) => file.object(index, limits)?,
        };
        match object {
            Object::Scalar(value) => {
                let length = match &value {
                    Value::String(text) => text.len(),
                    Value::Data(data) => data.len(),
                    _ => 8,
                };
                spend(&mut unfolded, length, limits)?;
                builder.scalar(value)?;
            }
            // Members go on the stack in reverse, below the limit of nodes that is still left.
            Object::Array(members) => {
                builder.start_array()?;
                file.room(&builder, members.len(), limits)?;
                steps.push(Step::End);
                steps.extend(members.into_iter().rev().map(Step::Value));
            }
            Object::Dictionary(keys, values) => {
                builder.start_dictionary()?;
                file.room(&builder, keys.len().saturating_add(values.len()), limits)?;
                steps.push(Step::End);
                for (key, value) in keys.into_iter().zip(values).rev() {
                    steps.push(Step::Value(value));
                    steps.push(Step::Key(key));
                }
            }
        }
    }
    builder.finish()
}

enum Step {
    Value(usize),
    Key(usize),
    End,
}

enum Object {
    Scalar(Value),
    Array(Vec<usize>),
    Dictionary(Vec<usize>, Vec<usize>),
}

/// Shared values may not unfold to more than the body was allowed to be.
fn spend(unfolded: &mut usize, length: usize, limits: &Limits) -> Result<(), Error> {
    *unfolded = unfolded.saturating_add(length);
    if *unfolded > limits.max_bytes {
        return Err(Error::ValueTooLarge { limit: limits.max_bytes });
    }
    Ok(())
}

struct File<'b> {
    bytes: &'b [u8],
    /// Objects lie between the header and this offset.
    objects_end: usize,
    offset_bytes: usize,
    reference_bytes: usize,
    count: usize,
    top: usize,
}

impl<'b> File<'b> {
    fn open(bytes: &'b [u8]) -> Result<Self, Error> {
        if !bytes.starts_with(HEADER) {
            return Err(Error::Binary("its version is not 00"));
        }
        let trailer_start = bytes
            .len()
            .checked_sub(TRAILER_BYTES)
            .filter(|start| *start >= HEADER.len())
            .ok_or(Error::Binary("it has no trailer"))?;
        let trailer = slice(bytes, trailer_start..bytes.len())?;
        let offset_bytes = usize::from(byte(trailer, 6)?);
        let reference_bytes = usize::from(byte(trailer, 7)?);
        let width = |n| (1..=8).contains(&n);
        if !width(offset_bytes) || !width(reference_bytes) {
            return Err(Error::Binary("a width in its trailer is wrong"));
        }
        let count = number(slice(trailer, 8..16)?)?;
        let top = number(slice(trailer, 16..24)?)?;
        let objects_end = number(slice(trailer, 24..32)?)?;
        let table_end = count
            .checked_mul(offset_bytes)
            .and_then(|length| length.checked_add(objects_end))
            .ok_or(Error::Binary("its offset table is too long"))?;
        if objects_end < HEADER.len() || table_end > trailer_start {
            return Err(Error::Binary("its offset table lies outside"));
        }
        if top >= count {
            return Err(Error::Binary("its top object does not exist"));
        }
        Ok(Self { bytes, objects_end, offset_bytes, reference_bytes, count, top })
    }

    /// Refuses a collection before its members are put on the stack.
    fn room(&self, builder: &Builder<'_>, members: usize, limits: &Limits) -> Result<(), Error> {
        if builder.nodes.saturating_add(members) > limits.max_nodes {
            return Err(Error::TooManyNodes { limit: limits.max_nodes });
        }
        Ok(())
    }

    fn object(&self, index: usize, limits: &Limits) -> Result<Object, Error> {
        if index >= self.count {
            return Err(Error::Binary("it refers to an object that does not exist"));
        }
        let entry = index
            .checked_mul(self.offset_bytes)
            .and_then(|offset| offset.checked_add(self.objects_end))
            .ok_or(Error::Binary("its offset table is too long"))?;
        let start = number(self.range(self.bytes.len(), entry, self.offset_bytes)?)?;
        if start < HEADER.len() || start >= self.objects_end {
            return Err(Error::Binary("an object lies outside"));
        }
        let token = byte(self.bytes, start)?;
        let (kind, low) = (token >> 4, token & 0x0f);
        let body = start + 1;
        Ok(match (kind, low) {
            (0x0, 0x8) => Object::Scalar(Value::Boolean(false)),
            (0x0, 0x9) => Object::Scalar(Value::Boolean(true)),
            (0x1, 0..=4) => Object::Scalar(integer(self.body(body, 1 << low)?)?),
            (0x2, 2 | 3) => Object::Scalar(Value::Real(real(self.body(body, 1 << low)?)?)),
            (0x3, 3) => Object::Scalar(Value::Date(date(self.body(body, 8)?)?)),
            (0x4, _) => {
                let (at, length) = self.length(body, low)?;
                let data = self.sized(at, length, limits)?;
                Object::Scalar(Value::Data(data.to_vec()))
            }
            (0x5, _) => {
                let (at, length) = self.length(body, low)?;
                let text = self.sized(at, length, limits)?;
                // Writers put UTF-8 here too; ASCII is a part of it.
                let text = std::str::from_utf8(text).map_err(|_| Error::Binary("a string is not ASCII"))?;
                Object::Scalar(Value::String(text.to_owned()))
            }
            (0x6, _) => {
                let (at, units) = self.length(body, low)?;
                let length = units.checked_mul(2).ok_or(Error::Binary("a string is too long"))?;
                Object::Scalar(Value::String(utf16(self.sized(at, length, limits)?)?))
            }
            (0xa, _) => {
                let (at, length) = self.length(body, low)?;
                Object::Array(self.references(at, length)?.0)
            }
            (0xd, _) => {
                let (at, length) = self.length(body, low)?;
                let (keys, at) = self.references(at, length)?;
                let (values, _) = self.references(at, length)?;
                Object::Dictionary(keys, values)
            }
            _ => return Err(Error::Binary("an object has a type that property lists lack")),
        })
    }

    /// A length in the token itself, or in an integer object that follows it.
    fn length(&self, at: usize, low: u8) -> Result<(usize, usize), Error> {
        if low != 0x0f {
            return Ok((at, usize::from(low)));
        }
        let token = byte(self.bytes, at)?;
        let width = match token {
            0x10..=0x13 => 1_usize << (token & 0x0f),
            _ => return Err(Error::Binary("a length is not an integer")),
        };
        let at = at + 1;
        let length = number(self.body(at, width)?)?;
        Ok((at + width, length))
    }

    fn sized(&self, at: usize, length: usize, limits: &Limits) -> Result<&'b [u8], Error> {
        if length > limits.max_string {
            return Err(Error::ValueTooLarge { limit: limits.max_string });
        }
        self.body(at, length)
    }

    fn references(&self, at: usize, count: usize) -> Result<(Vec<usize>, usize), Error> {
        let length =
            count.checked_mul(self.reference_bytes).ok_or(Error::Binary("a collection is too long"))?;
        let references = self
            .body(at, length)?
            .chunks_exact(self.reference_bytes)
            .map(number)
            .collect::<Result<Vec<_>, _>>()?;
        Ok((references, at + length))
    }

    fn body(&self, at: usize, length: usize) -> Result<&'b [u8], Error> {
        self.range(self.objects_end, at, length)
    }

    fn range(&self, end: usize, at: usize, length: usize) -> Result<&'b [u8], Error> {
        let stop = at
            .checked_add(length)
            .filter(|stop| *stop <= end)
            .ok_or(Error::Binary("a value lies outside"))?;
        slice(self.bytes, at..stop)
    }
}

fn slice(bytes: &[u8], range: Range<usize>) -> Result<&[u8], Error> {
    bytes.get(range).ok_or(Error::Binary("a value lies outside"))
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, Error> {
    bytes.get(at).copied().ok_or(Error::Binary("a value lies outside"))
}

/// A big-endian number of one to eight bytes.
fn number(bytes: &[u8]) -> Result<usize, Error> {
    let value = bytes.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    usize::try_from(value).map_err(|_| Error::Binary("a number is too large"))
}

/// One, two and four bytes are unsigned, eight signed, sixteen hold an unsigned 64-bit number.
fn integer(bytes: &[u8]) -> Result<Value, Error> {
    let too_large = || Error::Binary("an integer is too large");
    let value = bytes.iter().fold(0_u128, |value, byte| (value << 8) | u128::from(*byte));
    if bytes.len() == 8 {
        let value = u64::try_from(value).map_err(|_| too_large())?;
        return Ok(Value::Integer(value.cast_signed().into()));
    }
    let value = u64::try_from(value).map_err(|_| too_large())?;
    Ok(Value::Integer(value.into()))
}

fn real(bytes: &[u8]) -> Result<f64, Error> {
    if let Ok(bits) = <[u8; 4]>::try_from(bytes) {
        return Ok(f64::from(f32::from_be_bytes(bits)));
    }
    let bits = <[u8; 8]>::try_from(bytes).map_err(|_| Error::Binary("a real number is wrong"))?;
    Ok(f64::from_be_bytes(bits))
}

fn date(bytes: &[u8]) -> Result<Date, Error> {
    use std::time::{Duration, UNIX_EPOCH};
    let seconds = real(bytes)?;
    if !seconds.is_finite() || seconds.abs() > MAX_DATE_SECONDS {
        return Err(Error::Binary("a date is out of range"));
    }
    let distance = Duration::from_secs_f64(seconds.abs());
    let epoch = UNIX_EPOCH + Duration::from_secs(EPOCH);
    let moment = if seconds < 0.0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    moment.map(Date::from).ok_or(Error::Binary("a date is out of range"))
}

fn utf16(bytes: &[u8]) -> Result<String, Error> {
    let units = bytes.chunks_exact(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    });
    char::decode_utf16(units)
        .collect::<Result<String, _>>()
        .map_err(|_| Error::Binary("a string is not UTF-16"))
}
