//! A backup as a file: who made it of what in clear, then sealed chunks (docs/adr/0011).
//!
//! `BELLWETHER BACKUP 1\n`, the header's length (4 bytes), the header (JSON), its signature (32 bytes), then chunks: a
//! length (4 bytes; the highest bit says that it is the last) and that many sealed bytes. Nothing follows the last.

use crate::error::Error;
use bellwether_certs::hash::{ct_eq, hex, random_bytes, unhex};
use bellwether_certs::seal::MasterKey;
use bellwether_certs::stream::{CHUNK_TAG, HEADER_TAG, SALT, StreamKey, header_tag};
use bellwether_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

const MAGIC: &[u8; 20] = b"BELLWETHER BACKUP 1\n";
/// What the keys are derived for.
const PURPOSE: &str = "backup/v1";
/// Bytes in a chunk.
const CHUNK: usize = 64 * 1024;
const LAST: u32 = 1 << 31;
/// No header of ours comes near.
const MAX_HEADER: u32 = 4 * 1024;

/// What stands in clear: enough to tell whether a backup can be restored here, and nothing of what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the server that made it.
    pub server: String,
    /// `sqlite` or `postgres`. Rows of one can be restored into the other.
    pub backend: String,
    /// The newest migration.
    pub schema: String,
    /// From when the rows are.
    pub at: Timestamp,
    /// Names the master key, hex. Says nothing about it.
    pub key: String,
    salt: String,
}

impl Header {
    pub(super) fn new(
        master: &MasterKey,
        server: &str,
        backend: &str,
        schema: &str,
        at: Timestamp,
    ) -> Result<Self, Error> {
        Ok(Self {
            server: server.to_owned(),
            backend: backend.to_owned(),
            schema: schema.to_owned(),
            at,
            key: hex(&master.key_id()),
            salt: hex(&random_bytes::<SALT>()?),
        })
    }
}

/// Seals what is written to it.
pub(super) struct Sealing<W> {
    out: W,
    key: StreamKey,
    plain: Vec<u8>,
}

impl<W: Write> Sealing<W> {
    pub(super) fn new(mut out: W, master: &MasterKey, header: &Header) -> Result<Self, Error> {
        let text =
            serde_json::to_vec(header).map_err(|e| Error::Internal(format!("a backup's header: {e}")))?;
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let key = stream_key(master, header, &text)?;
        let tag = header_tag(master, PURPOSE, &text);
        for bytes in [&MAGIC[..], &length.to_be_bytes(), &text, &tag] {
            out.write_all(bytes)
                .map_err(|e| Error::Conflict(format!("the backup cannot be written: {e}")))?;
        }
        Ok(Self { out, key, plain: Vec::with_capacity(CHUNK) })
    }

    /// Writes the last chunk; without it the file is no backup.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.chunk(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn chunk(&mut self, last: bool) -> io::Result<()> {
        let sealed = self.key.seal(&self.plain, last).map_err(io::Error::other)?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.plain.clear();
        self.out.write_all(&(length | if last { LAST } else { 0 }).to_be_bytes())?;
        self.out.write_all(&sealed)
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() >= CHUNK {
            self.chunk(false)?;
        }
        let room = CHUNK.saturating_sub(self.plain.len()).min(bytes.len());
        self.plain.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what [`Sealing`] made. Holds one chunk, whatever a length claims.
pub(super) struct Opening<R> {
    input: R,
    key: StreamKey,
    plain: Vec<u8>,
    at: usize,
    over: bool,
    number: u64,
}

/// Reads the header. Its signature tells a backup of this master key before anything is opened.
pub(super) fn open<R: Read>(mut input: R, master: &MasterKey) -> Result<(Header, Opening<R>), Error> {
    let mut magic = [0; MAGIC.len()];
    let (known, version) = MAGIC.split_at(MAGIC.len() - 2);
    input.read_exact(&mut magic).map_err(|_| bad("this is no backup of Bellwether"))?;
    if !magic.starts_with(known) {
        return Err(bad("this is no backup of Bellwether"));
    }
    if !magic.ends_with(version) {
        return Err(bad(
            "this backup was made by a newer version of Bellwether; use that version to restore it",
        ));
    }
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(|e| cut(&e))?;
    let length = u32::from_be_bytes(length);
    if length > MAX_HEADER {
        return Err(bad("its header is damaged"));
    }
    let mut text = vec![0; length as usize];
    input.read_exact(&mut text).map_err(|e| cut(&e))?;
    let mut tag = [0; HEADER_TAG];
    input.read_exact(&mut tag).map_err(|e| cut(&e))?;
    let header: Header = serde_json::from_slice(&text).map_err(|_| bad("its header is damaged"))?;
    let ours = hex(&master.key_id());
    if header.key != ours {
        return Err(bad(format!(
            "this backup was sealed with the master key {}, and the one that is given here is {ours}. Without the \
             key that it was made with nothing in it can be opened, by nobody. Nothing was changed",
            header.key.chars().take(16).filter(char::is_ascii_hexdigit).collect::<String>()
        )));
    }
    if !ct_eq(&tag, &header_tag(master, PURPOSE, &text)) {
        return Err(bad("its header was changed"));
    }
    let key = stream_key(master, &header, &text)?;
    Ok((header, Opening { input, key, plain: Vec::new(), at: 0, over: false, number: 0 }))
}

impl<R: Read> Opening<R> {
    fn chunk(&mut self) -> io::Result<()> {
        let wrong =
            |what: &str| io::Error::other(format!("the backup is damaged: {what} (chunk {})", self.number));
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(|_| wrong("it was cut off"))?;
        let length = u32::from_be_bytes(length);
        let (last, length) = (length & LAST != 0, (length & !LAST) as usize);
        if !(CHUNK_TAG..=CHUNK + CHUNK_TAG).contains(&length) {
            return Err(wrong("a length is impossible"));
        }
        let mut sealed = vec![0; length];
        self.input.read_exact(&mut sealed).map_err(|_| wrong("it was cut off"))?;
        let opened = self.key.open(&sealed, last);
        self.plain = opened.map_err(|_| wrong("bytes were changed, moved or taken from another backup"))?;
        (self.at, self.over, self.number) = (0, last, self.number + 1);
        if last {
            let mut more = [0];
            if self.input.read(&mut more)? != 0 {
                return Err(io::Error::other("the backup is damaged: something follows its end"));
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.plain.len() {
            if self.over {
                return Ok(0);
            }
            self.chunk()?;
        }
        let rest = self.plain.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.at += count;
        Ok(count)
    }
}

fn stream_key(master: &MasterKey, header: &Header, text: &[u8]) -> Result<StreamKey, Error> {
    let salt = unhex(&header.salt).and_then(|salt| <[u8; SALT]>::try_from(salt).ok());
    Ok(StreamKey::new(master, PURPOSE, &salt.ok_or_else(|| bad("its header is damaged"))?, text))
}

fn bad(what: impl Into<String>) -> Error {
    Error::Invalid(what.into())
}

fn cut(why: &io::Error) -> Error {
    match why.kind() {
        io::ErrorKind::UnexpectedEof => bad("the backup was cut off"),
        _ => bad(format!("the backup cannot be read: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(master: &MasterKey, plain: &[u8]) -> Vec<u8> {
        let header = Header::new(master, "0.1.0", "sqlite", "20261122030000", Timestamp(5)).unwrap();
        let mut sealing = Sealing::new(Vec::new(), master, &header).unwrap();
        sealing.write_all(plain).unwrap();
        sealing.finish().unwrap()
    }

    fn opened(master: &MasterKey, file: &[u8]) -> Result<Vec<u8>, String> {
        let (_, mut opening) = open(file, master).map_err(|e| e.to_string())?;
        let mut plain = Vec::new();
        opening.read_to_end(&mut plain).map_err(|e| e.to_string())?;
        Ok(plain)
    }

    /// Where each chunk begins, and the end.
    fn chunks(file: &[u8]) -> Vec<usize> {
        let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        let mut at = MAGIC.len() + 4 + number(MAGIC.len()) as usize + HEADER_TAG;
        let mut all = vec![at];
        while at < file.len() {
            at += 4 + (number(at) & !LAST) as usize;
            all.push(at);
        }
        all
    }

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[7; 32])
    }

    #[test]
    fn what_was_sealed_comes_back_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17] {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let file = sealed(&key(), &plain);
            assert_eq!(opened(&key(), &file), Ok(plain.clone()), "{length}");
            if length > 100 {
                assert!(!file.windows(40).any(|w| w == &plain[..40]), "nothing of it stands in clear");
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_at_any_chunk_or_within_is_refused() {
        let file = sealed(&key(), &vec![3; 3 * CHUNK]);
        let borders = chunks(&file);
        assert_eq!(borders.len(), 4);
        let head = 0..=borders[0];
        let near = borders.iter().flat_map(|at| [at.saturating_sub(1), *at, at + 1, at + 4]);
        for length in head.chain(near).filter(|length| *length < file.len()) {
            let why = opened(&key(), &file[..length]).expect_err("refused");
            assert!(why.contains("cut off") || why.contains("no backup"), "{length}: {why}");
        }
        let longer = [&file[..], b"x"].concat();
        assert!(opened(&key(), &longer).unwrap_err().contains("follows its end"));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let file = sealed(&key(), b"a short one");
        for at in 0..file.len() {
            for bit in [1, 128] {
                let mut changed = file.clone();
                changed[at] ^= bit;
                assert!(opened(&key(), &changed).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn chunks_of_two_backups_or_in_another_order_are_refused() {
        let (a, b) = (sealed(&key(), &vec![1; 3 * CHUNK]), sealed(&key(), &vec![2; 3 * CHUNK]));
        let (at, bt) = (chunks(&a), chunks(&b));
        assert_eq!(at, bt, "as long as each other");
        let spliced = [&a[..at[1]], &b[bt[1]..]].concat();
        assert!(opened(&key(), &spliced).unwrap_err().contains("another backup (chunk 1)"));
        let headed = [&a[..at[0]], &b[bt[0]..]].concat();
        assert!(opened(&key(), &headed).unwrap_err().contains("(chunk 0)"));
        let swapped = [&a[..at[0]], &a[at[1]..at[2]], &a[at[0]..at[1]], &a[at[2]..]].concat();
        assert!(opened(&key(), &swapped).is_err());
        let left_out = [&a[..at[1]], &a[at[2]..]].concat();
        assert!(opened(&key(), &left_out).is_err());
        // The middle one, said to be the last.
        let mut short = a[..at[2]].to_vec();
        short[at[1]] |= 0x80;
        assert!(opened(&key(), &short).is_err());
    }

    #[test]
    fn rt_23_another_master_key_is_refused_in_plain_words() {
        let file = sealed(&key(), b"rows");
        let why = opened(&MasterKey::from_bytes(&[8; 32]), &file).unwrap_err();
        assert!(why.contains("master key") && why.contains("Nothing was changed"), "{why}");
        // A header that claims the other key does not make it open.
        let other = MasterKey::from_bytes(&[8; 32]);
        let text = String::from_utf8_lossy(&file).into_owned();
        assert!(text.contains(&hex(&key().key_id())));
        let at = file.windows(16).position(|w| w == hex(&key().key_id()).as_bytes()).unwrap();
        let mut forged = file.clone();
        forged[at..at + 16].copy_from_slice(hex(&other.key_id()).as_bytes());
        assert_eq!(opened(&other, &forged).unwrap_err(), "its header was changed");
    }

    #[test]
    fn other_files_other_versions_and_lying_lengths_are_told_apart() {
        let file = sealed(&key(), b"rows");
        assert!(opened(&key(), b"PK\x03\x04").unwrap_err().contains("no backup"));
        let mut newer = file.clone();
        newer[MAGIC.len() - 2] = b'2';
        assert!(opened(&key(), &newer).unwrap_err().contains("newer version"));
        let mut huge = file.clone();
        huge[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(opened(&key(), &huge).unwrap_err().contains("header is damaged"));
        let mut huge = file.clone();
        let at = chunks(&file)[0];
        huge[at..at + 4].copy_from_slice(&(u32::MAX).to_be_bytes());
        assert!(opened(&key(), &huge).unwrap_err().contains("length is impossible"));
    }
}
