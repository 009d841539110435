//! A small ASN.1 codec: a bounded BER guard, a BER-to-definite-length transcoder, a reader and a writer.
//!
//! Apple devices send CMS in BER with indefinite lengths and constructed octet strings, which the DER
//! parsers of the ecosystem refuse. [`to_definite`] rewrites only what must be rewritten (ITU-T X.690
//! §8.1.3.6 indefinite lengths, §8.7.3 constructed octet strings) and copies every other byte as it came,
//! so that signatures over parts of the message still verify.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Deepest nesting that is read. Real CMS messages stay under 20.
pub const MAX_DEPTH: usize = 64;

/// Constructed, universal OCTET STRING.
const CONSTRUCTED_OCTETS: u8 = 0x24;
const OCTETS: u8 = 0x04;

/// Checks that `input` is exactly one well-formed BER value within the bounds of this server.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::TooDeep`], [`Error::TrailingData`] or [`Error::Malformed`] (truncated,
/// impossible length, stray end-of-contents).
pub fn guard_ber(input: &[u8], max_len: usize) -> Result<()> {
    scan(input, max_len).map(|_| ())
}

/// The same value with definite lengths and primitive octet strings; borrowed when nothing had to change.
///
/// # Errors
/// As [`guard_ber`]; also for an octet string whose pieces are something else.
pub fn to_definite(input: &[u8], max_len: usize) -> Result<Cow<'_, [u8]>> {
    if !scan(input, max_len)? {
        return Ok(Cow::Borrowed(input));
    }
    let mut out = Vec::with_capacity(input.len());
    transcode(input, &mut out, 0)?;
    Ok(Cow::Owned(out))
}

/// The opposite of [`to_definite`], for the client side: every constructed value gets an indefinite length
/// and every octet string comes in pieces, the worst that real clients send. Input must be definite.
///
/// # Errors
/// As [`guard_ber`].
pub fn to_indefinite(definite: &[u8]) -> Result<Vec<u8>> {
    guard_ber(definite, definite.len())?;
    let mut out = Vec::with_capacity(definite.len() * 2);
    let mut reader = Reader::new(definite);
    while !reader.is_empty() {
        push_indefinite(&reader.next("definite value")?, &mut out)?;
    }
    Ok(out)
}

/// One value: its tag, its contents and its whole encoding.
#[derive(Debug, Clone, Copy)]
pub struct Tlv<'a> {
    /// First identifier octet: class, constructed bit and low tag number.
    pub tag: u8,
    /// Contents octets.
    pub content: &'a [u8],
    /// Identifier, length and contents.
    pub raw: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// Reads the values inside.
    #[must_use]
    pub fn reader(&self) -> Reader<'a> {
        Reader::new(self.content)
    }
}

/// Reads definite-length values one after another.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next value, without reading it.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Reads the next value, whatever it is.
    ///
    /// # Errors
    /// [`Error::Malformed`] at the end, on a truncated value and on an indefinite length.
    pub fn next(&mut self, what: &'static str) -> Result<Tlv<'a>> {
        let header = Header::read(self.rest).ok_or(Error::Malformed { what })?;
        let len = header.length.ok_or(Error::Malformed { what })?;
        let total = header.size.checked_add(len).ok_or(Error::Malformed { what })?;
        let (raw, rest) = self.rest.split_at_checked(total).ok_or(Error::Malformed { what })?;
        let content = raw.get(header.size..).ok_or(Error::Malformed { what })?;
        self.rest = rest;
        Ok(Tlv { tag: header.tag, content, raw })
    }

    /// Reads the next value, which must have this tag.
    ///
    /// # Errors
    /// [`Error::Malformed`] otherwise.
    pub fn expect(&mut self, tag: u8, what: &'static str) -> Result<Tlv<'a>> {
        let tlv = self.next(what)?;
        if tlv.tag == tag { Ok(tlv) } else { Err(Error::Malformed { what }) }
    }

    /// Reads the next value if it has this tag.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it has the tag but is truncated.
    pub fn optional(&mut self, tag: u8, what: &'static str) -> Result<Option<Tlv<'a>>> {
        if self.peek() == Some(tag) { self.next(what).map(Some) } else { Ok(None) }
    }

    /// Refuses leftovers.
    ///
    /// # Errors
    /// [`Error::TrailingData`] if something is left.
    pub const fn finish(&self, what: &'static str) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::TrailingData { what }) }
    }
}

/// Encodes one value from the concatenation of `parts`.
#[must_use]
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|p| p.len()).sum::<usize>();
    let mut out = Vec::with_capacity(len + 6);
    out.push(tag);
    push_length(&mut out, len);
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// Encodes a SEQUENCE.
#[must_use]
pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

/// Encodes a SET OF in DER order (X.690 §11.6).
#[must_use]
pub fn set_of(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    let refs: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    tlv(0x31, &refs)
}

/// Encodes an OBJECT IDENTIFIER from its content octets.
#[must_use]
pub fn oid(content: &[u8]) -> Vec<u8> {
    tlv(0x06, &[content])
}

/// Encodes an OCTET STRING.
#[must_use]
pub fn octets(content: &[u8]) -> Vec<u8> {
    tlv(OCTETS, &[content])
}

/// Encodes a non-negative INTEGER from its big-endian bytes.
#[must_use]
pub fn integer(big_endian: &[u8]) -> Vec<u8> {
    let digits = magnitude(big_endian);
    match digits.first() {
        None => tlv(0x02, &[&[0]]),
        Some(top) if top & 0x80 != 0 => tlv(0x02, &[&[0], digits]),
        Some(_) => tlv(0x02, &[digits]),
    }
}

/// The big-endian bytes of a number without leading zeros.
#[must_use]
pub fn magnitude(big_endian: &[u8]) -> &[u8] {
    let zeros = big_endian.iter().take_while(|b| **b == 0).count();
    big_endian.get(zeros..).unwrap_or_default()
}

/// Encodes a BIT STRING without unused bits.
#[must_use]
pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content])
}

/// Encodes a `Time` (RFC 5280 §4.1.2.5): UTCTime until 2049, GeneralizedTime after. Whole seconds.
///
/// # Errors
/// [`Error::Template`] outside the years 1950 to 9999.
pub fn time(ms: i64) -> Result<Vec<u8>> {
    const RANGE: Error = Error::Template { reason: "a date must lie between the years 1950 and 9999" };
    let t = time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).map_err(|_| RANGE)?;
    let year = t.year();
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(t.month()), t.day(), t.hour(), t.minute(), t.second());
    match year {
        1950..=2049 => Ok(tlv(0x17, &[format!("{:02}", year.rem_euclid(100)).as_bytes(), rest.as_bytes()])),
        2050..=9999 => Ok(tlv(0x18, &[format!("{year:04}").as_bytes(), rest.as_bytes()])),
        _ => Err(RANGE),
    }
}

/// Reads a UTCTime or GeneralizedTime in UTC, in milliseconds since the Unix epoch.
#[must_use]
pub fn parse_time(value: &Tlv<'_>) -> Option<i64> {
    let text = std::str::from_utf8(value.content).ok()?.strip_suffix('Z')?;
    // Fractions of a second are legal in GeneralizedTime and mean nothing here.
    let text = text.split_once('.').map_or(text, |(whole, _)| whole);
    let (year, rest) = match value.tag {
        0x17 => {
            let (yy, rest) = text.split_at_checked(2)?;
            let yy = yy.parse::<u8>().ok()?;
            (i32::from(yy) + if yy < 50 { 2000 } else { 1900 }, rest)
        }
        0x18 => {
            let (yyyy, rest) = text.split_at_checked(4)?;
            (i32::from(yyyy.parse::<u16>().ok()?), rest)
        }
        _ => return None,
    };
    if !matches!(rest.len(), 8 | 10) || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2).unwrap_or("00").parse::<u8>().ok();
    let month = time::Month::try_from(two(0)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, two(2)?).ok()?;
    let clock = time::Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    time::PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp().checked_mul(1000)
}

fn push_indefinite(value: &Tlv<'_>, out: &mut Vec<u8>) -> Result<()> {
    if value.tag == OCTETS {
        out.extend_from_slice(&[CONSTRUCTED_OCTETS, 0x80]);
        value.content.chunks(50).for_each(|piece| out.extend(octets(piece)));
        out.extend_from_slice(&[0, 0]);
    } else if value.tag & 0x20 != 0 {
        let tag_size = Header::read(value.raw).ok_or(BER)?.tag_size;
        out.extend_from_slice(value.raw.get(..tag_size).ok_or(BER)?);
        out.push(0x80);
        let mut children = value.reader();
        while !children.is_empty() {
            push_indefinite(&children.next("definite value")?, out)?;
        }
        out.extend_from_slice(&[0, 0]);
    } else {
        out.extend_from_slice(value.raw);
    }
    Ok(())
}

fn push_length(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = len.to_be_bytes();
            let digits = magnitude(&bytes);
            // At most eight digits, so the cast cannot lose anything.
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            out.extend_from_slice(digits);
        }
    }
}

/// Identifier and length octets.
struct Header {
    tag: u8,
    /// Octets of identifier and length.
    size: usize,
    /// Octets of identifier alone.
    tag_size: usize,
    /// `None` = indefinite.
    length: Option<usize>,
}

impl Header {
    fn read(input: &[u8]) -> Option<Self> {
        let tag = *input.first()?;
        let mut at = 1;
        if tag & 0x1f == 0x1f {
            // High tag numbers: nothing we read uses them, but unknown extensions may.
            let more = input.get(1..)?.iter().take(6).position(|b| b & 0x80 == 0)?;
            at += more + 1;
        }
        let tag_size = at;
        let first = *input.get(at)?;
        at += 1;
        let length = match first {
            0x80 => None,
            0..=0x7f => Some(usize::from(first)),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let mut value = 0_usize;
                for byte in input.get(at..at + count)? {
                    value = value.checked_mul(256)?.checked_add(usize::from(*byte))?;
                }
                at += count;
                Some(value)
            }
            _ => return None,
        };
        Some(Self { tag, size: at, tag_size, length })
    }

    const fn constructed(&self) -> bool {
        self.tag & 0x20 != 0
    }
}

const BER: Error = Error::Malformed { what: "BER" };

/// Walks the whole value; tells whether anything has to be rewritten.
fn scan(input: &[u8], max_len: usize) -> Result<bool> {
    if input.len() > max_len {
        return Err(Error::TooLarge { len: input.len(), limit: max_len });
    }
    let mut rewrite = false;
    let used = scan_value(input, 0, &mut rewrite)?;
    if used != input.len() {
        return Err(Error::TrailingData { what: "BER value" });
    }
    Ok(rewrite)
}

fn scan_value(input: &[u8], depth: usize, rewrite: &mut bool) -> Result<usize> {
    if depth >= MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    let header = Header::read(input).ok_or(BER)?;
    // Tag 0 is end-of-contents, which only [`take_end`] may meet.
    if header.tag == 0 {
        return Err(BER);
    }
    let body = input.get(header.size..).ok_or(BER)?;
    if header.tag == CONSTRUCTED_OCTETS {
        *rewrite = true;
    }
    match header.length {
        Some(len) => {
            let mut content = body.get(..len).ok_or(BER)?;
            while header.constructed() && !content.is_empty() {
                let used = scan_value(content, depth + 1, rewrite)?;
                content = content.get(used..).ok_or(BER)?;
            }
            header.size.checked_add(len).ok_or(BER)
        }
        None if header.constructed() => {
            *rewrite = true;
            let mut used = 0;
            loop {
                let rest = body.get(used..).ok_or(BER)?;
                if rest.starts_with(&[0, 0]) {
                    return Ok(header.size + used + 2);
                }
                used += scan_value(rest, depth + 1, rewrite)?;
            }
        }
        None => Err(BER),
    }
}

/// Appends the definite form of the first value of `input`, which [`scan`] has accepted.
fn transcode(input: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<usize> {
    if depth >= MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    let header = Header::read(input).ok_or(BER)?;
    let mut rewrite = false;
    let total = scan_value(input, depth, &mut rewrite)?;
    let raw = input.get(..total).ok_or(BER)?;
    if !rewrite {
        out.extend_from_slice(raw);
        return Ok(total);
    }
    let end = if header.length.is_some() { total } else { total.saturating_sub(2) };
    let mut children = raw.get(header.size..end).ok_or(BER)?;
    let mut body = Vec::with_capacity(children.len());
    while !children.is_empty() {
        let used = if header.tag == CONSTRUCTED_OCTETS {
            let mut part = Vec::new();
            let used = transcode(children, &mut part, depth + 1)?;
            body.extend_from_slice(Reader::new(&part).expect(OCTETS, "constructed octet string")?.content);
            used
        } else {
            transcode(children, &mut body, depth + 1)?
        };
        children = children.get(used..).ok_or(BER)?;
    }
    if header.tag == CONSTRUCTED_OCTETS {
        out.push(OCTETS);
    } else {
        out.extend_from_slice(raw.get(..header.tag_size).ok_or(BER)?);
    }
    push_length(out, body.len());
    out.extend_from_slice(&body);
    Ok(total)
}

#[cfg(test)]
mod tests;
