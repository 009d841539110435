//! Rows as a stream of bytes that belongs to no database: what a backup holds.
//!
//! | record | bytes |
//! |---|---|
//! | table | `1`, name, number of columns (1 byte), their names. A name is a length (1 byte) and ASCII |
//! | row | `2`, then a value for each column |
//! | end | `3`, number of tables (2 bytes), for each its name and number of rows (8 bytes). Nothing follows |
//!
//! A value is `0` (NULL), `1` and 8 bytes (a number, also true and false), `2` or `3`, a length (4 bytes) and bytes (text
//! or bytes). Numbers are big-endian.

use crate::StoreError;
use std::collections::BTreeMap;
use std::io::{Read, Write};

const TABLE: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;
/// No table of ours has more.
const MAX_TABLES: usize = 1_000;
/// No value of ours comes near; PostgreSQL takes no more in one field.
const MAX_VALUE: u32 = 1 << 30;

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// How many rows of which table.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Writes rows.
pub(crate) struct Writer<'w> {
    out: &'w mut dyn Write,
    counts: Counts,
    current: String,
}

impl<'w> Writer<'w> {
    pub(crate) fn new(out: &'w mut dyn Write) -> Self {
        Self { out, counts: Counts::new(), current: String::new() }
    }

    /// The rows that follow are of this table.
    pub(crate) fn table(&mut self, name: &str, columns: &[String]) -> Result<(), StoreError> {
        let count = u8::try_from(columns.len()).map_err(|_| wrong("a table has too many columns"))?;
        self.put(&[TABLE])?;
        self.name(name)?;
        self.put(&[count])?;
        columns.iter().try_for_each(|column| self.name(column))?;
        self.counts.insert(name.to_owned(), 0);
        name.clone_into(&mut self.current);
        Ok(())
    }

    pub(crate) fn row(&mut self, values: &[Value]) -> Result<(), StoreError> {
        self.put(&[ROW])?;
        for value in values {
            match value {
                Value::Null => self.put(&[0])?,
                Value::Int(number) => {
                    self.put(&[1])?;
                    self.put(&number.to_be_bytes())?;
                }
                Value::Text(text) => self.long(2, text.as_bytes())?,
                Value::Bytes(bytes) => self.long(3, bytes)?,
            }
        }
        if let Some(count) = self.counts.get_mut(&self.current) {
            *count += 1;
        }
        Ok(())
    }

    /// The end; without it what was written is no backup.
    pub(crate) fn end(mut self) -> Result<Counts, StoreError> {
        let tables = u16::try_from(self.counts.len()).map_err(|_| wrong("there are too many tables"))?;
        self.put(&[END])?;
        self.put(&tables.to_be_bytes())?;
        let counts = std::mem::take(&mut self.counts);
        for (name, rows) in &counts {
            self.name(name)?;
            self.put(&rows.to_be_bytes())?;
        }
        Ok(counts)
    }

    fn long(&mut self, kind: u8, bytes: &[u8]) -> Result<(), StoreError> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_VALUE);
        self.put(&[kind])?;
        self.put(&length.ok_or_else(|| wrong("a value is too long"))?.to_be_bytes())?;
        self.put(bytes)
    }

    fn name(&mut self, name: &str) -> Result<(), StoreError> {
        let length = u8::try_from(name.len()).map_err(|_| wrong("a name is too long"))?;
        self.put(&[length])?;
        self.put(name.as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.out.write_all(bytes).map_err(|why| StoreError::Backup(format!("it cannot be written: {why}")))
    }
}

/// Takes what [`read`] finds.
pub(crate) trait Sink {
    /// The rows that follow are of this table.
    fn table(&mut self, name: &str, columns: &[String]) -> Result<(), StoreError>;
    /// One row, as many values as columns.
    fn row(&mut self, values: &[Value]) -> Result<(), StoreError>;
}

/// Reads a whole stream. Memory grows with the longest value that is really there, not with what a length claims.
pub(crate) fn read(input: &mut dyn Read, sink: &mut dyn Sink) -> Result<Counts, StoreError> {
    let mut reader = Reader { input };
    let mut counts = Counts::new();
    let mut current: Option<(String, usize)> = None;
    let mut values = Vec::new();
    loop {
        match (reader.byte()?, &current) {
            (TABLE, _) => {
                let name = reader.name()?;
                let columns = (0..reader.byte()?).map(|_| reader.name()).collect::<Result<Vec<_>, _>>()?;
                if counts.len() >= MAX_TABLES || counts.insert(name.clone(), 0).is_some() {
                    return Err(wrong("a table stands in it twice"));
                }
                sink.table(&name, &columns)?;
                current = Some((name, columns.len()));
            }
            (ROW, Some((name, columns))) => {
                values.clear();
                for _ in 0..*columns {
                    values.push(reader.value()?);
                }
                sink.row(&values)?;
                if let Some(count) = counts.get_mut(name) {
                    *count += 1;
                }
            }
            (END, _) => break,
            _ => return Err(wrong("it holds a record that this version does not know")),
        }
    }
    let tables = u16::from_be_bytes(reader.bytes()?);
    let mut said = Counts::new();
    for _ in 0..tables {
        let name = reader.name()?;
        said.insert(name, u64::from_be_bytes(reader.bytes()?));
    }
    if said != counts {
        return Err(wrong("it does not hold as many rows as it says"));
    }
    let mut rest = [0];
    match input.read(&mut rest) {
        Ok(0) => Ok(counts),
        Ok(_) => Err(wrong("something follows its end")),
        Err(why) => Err(unreadable(&why)),
    }
}

struct Reader<'r> {
    input: &'r mut dyn Read,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|why| unreadable(&why))?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        let [byte] = self.bytes()?;
        Ok(byte)
    }

    fn name(&mut self) -> Result<String, StoreError> {
        let length = self.byte()?;
        let name = self.text(u32::from(length))?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            Err(wrong("a name in it is none of ours"))
        } else {
            Ok(name)
        }
    }

    fn value(&mut self) -> Result<Value, StoreError> {
        match self.byte()? {
            0 => Ok(Value::Null),
            1 => Ok(Value::Int(i64::from_be_bytes(self.bytes()?))),
            2 => {
                let length = u32::from_be_bytes(self.bytes()?);
                Ok(Value::Text(self.text(length)?))
            }
            3 => {
                let length = u32::from_be_bytes(self.bytes()?);
                Ok(Value::Bytes(self.long(length)?))
            }
            _ => Err(wrong("it holds a value that this version does not know")),
        }
    }

    fn text(&mut self, length: u32) -> Result<String, StoreError> {
        String::from_utf8(self.long(length)?).map_err(|_| wrong("a text in it is none"))
    }

    fn long(&mut self, length: u32) -> Result<Vec<u8>, StoreError> {
        if length > MAX_VALUE {
            return Err(wrong("a value in it is too long"));
        }
        let mut bytes = Vec::new();
        // Grows as bytes come in: a length that lies costs nothing.
        let read = (&mut *self.input).take(u64::from(length)).read_to_end(&mut bytes);
        match read {
            Ok(got) if got as u64 == u64::from(length) => Ok(bytes),
            Ok(_) => Err(wrong("it ends in the middle of a value")),
            Err(why) => Err(unreadable(&why)),
        }
    }
}

fn wrong(what: &str) -> StoreError {
    StoreError::Backup(format!("its content is damaged: {what}"))
}

fn unreadable(why: &std::io::Error) -> StoreError {
    match why.kind() {
        std::io::ErrorKind::UnexpectedEof => wrong("it ends too early"),
        // The reader below says in whole sentences what is wrong.
        _ => StoreError::Backup(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(String, Vec<Value>)>, String);

    impl Sink for Seen {
        fn table(&mut self, name: &str, _: &[String]) -> Result<(), StoreError> {
            name.clone_into(&mut self.1);
            Ok(())
        }

        fn row(&mut self, values: &[Value]) -> Result<(), StoreError> {
            self.0.push((self.1.clone(), values.to_vec()));
            Ok(())
        }
    }

    fn sample() -> (Vec<u8>, Vec<Vec<Value>>) {
        let rows = vec![
            vec![Value::Null, Value::Int(-5), Value::Text("é".into()), Value::Bytes(vec![0, 255])],
            vec![
                Value::Bytes(vec![7; 70_000]),
                Value::Int(i64::MAX),
                Value::Text(String::new()),
                Value::Null,
            ],
        ];
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.table("empty", &[]).expect("written");
        let columns: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        writer.table("full", &columns).expect("written");
        rows.iter().for_each(|row| writer.row(row).expect("written"));
        let counts = writer.end().expect("written");
        assert_eq!(counts, Counts::from([("empty".to_owned(), 0), ("full".to_owned(), 2)]));
        (out, rows)
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let (bytes, rows) = sample();
        let mut seen = Seen::default();
        let counts = read(&mut bytes.as_slice(), &mut seen).expect("read");
        assert_eq!(counts.get("full"), Some(&2));
        assert_eq!(seen.0.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_refused_at_every_byte() {
        let (bytes, _) = sample();
        for length in (0..100).chain((bytes.len() - 100)..bytes.len()) {
            let refused = read(&mut bytes.get(..length).expect("shorter"), &mut Seen::default());
            assert!(matches!(refused, Err(StoreError::Backup(_))), "{length}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(read(&mut longer.as_slice(), &mut Seen::default()).is_err());
    }

    #[test]
    fn a_huge_length_costs_no_memory() {
        // A row of one value that claims almost a gigabyte and has three bytes.
        let mut bytes = vec![TABLE, 1, b't', 1, 1, b'c', ROW, 3];
        bytes.extend_from_slice(&(MAX_VALUE - 1).to_be_bytes());
        bytes.extend_from_slice(b"abc");
        let refused = read(&mut bytes.as_slice(), &mut Seen::default()).expect_err("refused");
        assert!(refused.to_string().contains("middle of a value"), "{refused}");
        let mut bytes = vec![TABLE, 1, b't', 1, 1, b'c', ROW, 3];
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        let refused = read(&mut bytes.as_slice(), &mut Seen::default()).expect_err("refused");
        assert!(refused.to_string().contains("too long"), "{refused}");
    }

    #[test]
    fn names_that_are_none_of_ours_are_refused() {
        for name in ["", "a\"; DROP TABLE sites; --", "A", "a b"] {
            let mut out = Vec::new();
            Writer::new(&mut out).table(name, &[]).expect("written");
            assert!(read(&mut out.as_slice(), &mut Seen::default()).is_err(), "{name}");
        }
    }
}
