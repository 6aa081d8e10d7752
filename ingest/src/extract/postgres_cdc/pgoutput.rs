//! PostgreSQL's pgoutput, version 1: the bytes of one message → what it says.
//!
//! Values are text in the encoding of the client, as psql shows them. The format is that of "Logical Replication Message
//! Formats" in PostgreSQL's manual. Bytes that are not of it are an error, never a guess.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::error::Error;

/// A place in the write-ahead log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let half = |half: &str| u32::from_str_radix(half, 16).ok().map(u64::from);
        let read = text.split_once('/').and_then(|(high, low)| Some((half(high)? << 32) | half(low)?));
        read.map(Self).ok_or_else(|| format!("`{text}` is no place in a write-ahead log"))
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What a message says. Tables are told by their oid.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    /// The time of the commit, in microseconds since 1970.
    Begin {
        time_us: i64,
        xid: u32,
    },
    /// Where the transaction ends.
    Commit {
        end: Lsn,
    },
    /// How a table is, before the first change of it and after each change of its columns.
    Relation {
        oid: u32,
        name: String,
        columns: Vec<Column>,
    },
    Insert {
        oid: u32,
        new: Tuple<'a>,
    },
    Update {
        oid: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        oid: u32,
        old: Old<'a>,
    },
    Truncate {
        oids: Vec<u32>,
    },
    /// Nothing about rows: an origin, a type, a message of an application.
    Other,
}

#[derive(Debug, PartialEq)]
pub(super) struct Column {
    pub name: String,
    /// Whether it is part of the replica identity.
    pub is_identity: bool,
}

/// The values of a row, in the order of its columns.
pub(super) type Tuple<'a> = Vec<Value<'a>>;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    /// Stored apart from the row (TOAST) and as before; it is not told.
    Unchanged,
    Text(&'a [u8]),
}

/// A row as it was: whole, or only its replica identity and null for the rest.
#[derive(Debug, PartialEq)]
pub(super) struct Old<'a> {
    pub is_whole: bool,
    pub row: Tuple<'a>,
}

/// Microseconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH_US: i64 = 946_684_800_000_000;

impl<'a> Message<'a> {
    /// # Errors
    /// `Source` for bytes that are no message.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut rest = Bytes(bytes);
        rest.message().ok_or_else(|| {
            let kind = bytes.first().map(|kind| char::from(*kind).escape_default().to_string()).unwrap_or_default();
            Error::source(format!("a message `{kind}` of {} bytes is not of pgoutput's version 1", bytes.len()))
        })
    }
}

/// What is not yet read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn message(&mut self) -> Option<Message<'a>> {
        Some(match self.byte()? {
            b'B' => {
                self.take(8)?;
                Message::Begin { time_us: self.i64()?.checked_add(EPOCH_US)?, xid: self.u32()? }
            }
            b'C' => {
                self.take(1 + 8)?;
                Message::Commit { end: Lsn(self.i64()? as u64) }
            }
            b'R' => {
                let oid = self.u32()?;
                let name = format!("{}.{}", self.text()?, self.text()?);
                self.take(1)?;
                let count = self.u16()?;
                let columns = (0..count).map(|_| self.column()).collect::<Option<_>>()?;
                Message::Relation { oid, name, columns }
            }
            b'I' => {
                let oid = self.u32()?;
                let b'N' = self.byte()? else { return None };
                Message::Insert { oid, new: self.tuple()? }
            }
            b'U' => {
                let (oid, kind) = (self.u32()?, self.byte()?);
                if kind == b'N' {
                    return Some(Message::Update { oid, old: None, new: self.tuple()? });
                }
                let old = self.old(kind)?;
                let b'N' = self.byte()? else { return None };
                Message::Update { oid, old: Some(old), new: self.tuple()? }
            }
            b'D' => {
                let (oid, kind) = (self.u32()?, self.byte()?);
                Message::Delete { oid, old: self.old(kind)? }
            }
            b'T' => {
                let count = self.u32()?;
                self.take(1)?;
                Message::Truncate { oids: (0..count).map(|_| self.u32()).collect::<Option<_>>()? }
            }
            b'O' | b'Y' | b'M' => Message::Other,
            _ => return None,
        })
    }

    fn column(&mut self) -> Option<Column> {
        let is_identity = self.byte()? & 1 == 1;
        let name = self.text()?;
        // The oid of its type and the type's modifier.
        self.take(4 + 4)?;
        Some(Column { name, is_identity })
    }

    fn old(&mut self, kind: u8) -> Option<Old<'a>> {
        match kind {
            b'K' | b'O' => Some(Old { is_whole: kind == b'O', row: self.tuple()? }),
            _ => None,
        }
    }

    fn tuple(&mut self) -> Option<Tuple<'a>> {
        let count = self.u16()?;
        let value = |_| {
            Some(match self.byte()? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => {
                    let length = self.u32()?;
                    Value::Text(self.take(length as usize)?)
                }
                _ => return None,
            })
        };
        (0..count).map(value).collect()
    }

    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn unhex(digits: &[u8], into: &mut Vec<u8>) -> Option<()> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    for pair in digits.chunks(2) {
        let [high, low] = pair else { return None };
        into.push((digit(*high)? << 4) | digit(*low)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    /// As PostgreSQL 15 sends them, for a table `qj (wid text primary key, xh char(6), b boolean, big text)`.
    const SENT: [&str; 10] = [
        "4200000000019250800003044613b7b21d000002d8",
        "52000040017075626c696300716a00640003017769640000000019ffffffff00786800000004120000000a00620000000010ffffffff",
        "49000040014e000374000000084c31e5be90e9878c7400000006616220202020740000000174",
        "55000040014e000374000000024c317400000006636420202020 75",
        "55000040014b000374000000024c316e6e4e000374000000024c327400000006636420202020 6e",
        "44000040014b000374000000024c326e6e",
        "44000040014f000374000000024c3274000000066364202020206e",
        "54000000010000004001",
        "4d0000000000000000007100000000023130",
        "4300000000000192508000000000019250b00003044613b7b21d",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        unhex(hex.replace(' ', "").as_bytes(), &mut bytes).expect("digits");
        bytes
    }

    /// A message on one line, its values as text.
    fn shown(bytes: &[u8]) -> String {
        let value = |value: &Value<'_>| match value {
            Value::Null => "null".to_string(),
            Value::Unchanged => "unchanged".to_string(),
            Value::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        };
        let row = |tuple: &Tuple<'_>| tuple.iter().map(value).collect::<Vec<_>>().join(" ");
        let before = |old: &Old<'_>| format!("{} {}", if old.is_whole { "row" } else { "key" }, row(&old.row));
        match Message::read(bytes) {
            Ok(Message::Insert { oid, new }) => format!("insert {oid}: {}\n", row(&new)),
            Ok(Message::Update { oid, old: None, new }) => format!("update {oid}: {}\n", row(&new)),
            Ok(Message::Update { oid, old: Some(old), new }) => {
                format!("update {oid}: {} -> {}\n", before(&old), row(&new))
            }
            Ok(Message::Delete { oid, old }) => format!("delete {oid}: {}\n", before(&old)),
            Ok(Message::Relation { oid, name, columns }) => {
                let column = |column: &Column| format!("{}{}", column.name, if column.is_identity { "*" } else { "" });
                format!("table {oid} {name}: {}\n", columns.iter().map(column).collect::<Vec<_>>().join(" "))
            }
            Ok(other) => format!("{other:?}\n"),
            Err(error) => format!("{error}\n"),
        }
    }

    #[test]
    fn each_message_says_what_postgresql_meant() {
        let told = SENT.map(|hex| shown(&bytes(hex)));
        expect![[r#"
            Begin { time_us: 1795808755159581, xid: 728 }
            table 16385 public.qj: wid* xh b
            insert 16385: "L1徐里" "ab    " "t"
            update 16385: "L1" "cd    " unchanged
            update 16385: key "L1" null null -> "L2" "cd    " null
            delete 16385: key "L2" null null
            delete 16385: row "L2" "cd    " null
            Truncate { oids: [16385] }
            Other
            Commit { end: Lsn(26366128) }
        "#]]
        .assert_eq(&told.concat());
    }

    #[test]
    fn a_message_that_ends_early_is_an_error_wherever_it_ends() {
        for hex in SENT.iter().filter(|hex| !hex.starts_with("4d")) {
            let whole = bytes(hex);
            // Of a commit the time is not read.
            let read = if hex.starts_with("43") { whole.len() - 8 } else { whole.len() };
            for end in 0..read {
                assert!(Message::read(&whole[..end]).is_err(), "{hex} to {end}");
            }
        }
        let wrong = ["", "5a", "49000040014f", "49000040014e000178"].map(|hex| shown(&bytes(hex)));
        expect![[r#"
            a message `` of 0 bytes is not of pgoutput's version 1
            a message `Z` of 1 bytes is not of pgoutput's version 1
            a message `I` of 6 bytes is not of pgoutput's version 1
            a message `I` of 9 bytes is not of pgoutput's version 1
        "#]]
        .assert_eq(&wrong.concat());
    }

    #[test]
    fn a_place_is_written_as_postgresql_writes_it() {
        for text in ["0/0", "0/19250B0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().expect("a place").to_string(), text);
        }
        for wrong in ["", "0", "0/", "G/0", "100000000/0", "0/0/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }
}
