//! Decides: reads the parts of a protobuf message: keys, numbers, byte strings.

use super::Error;

/// How a value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Group = 3,
    EndGroup = 4,
    Fixed32 = 5,
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The number and the layout of the next field; `None` at the end. A number too large for our table is one that no
    /// type of it has: 0.
    pub fn key(&mut self) -> Result<Option<(u16, Wire)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 => Wire::Group,
            4 => Wire::EndGroup,
            5 => Wire::Fixed32,
            other => return Err(Error::IllegalWire(other)),
        };
        match key >> 3 {
            0 => Err(Error::Tag(0)),
            number if number > u64::from(u32::MAX >> 3) => Err(Error::Tag(number)),
            number => Ok(Some((u16::try_from(number).unwrap_or(0), wire))),
        }
    }

    pub fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Overflow)
    }

    pub fn varint_of(&mut self, wire: Wire, field: &'static str) -> Result<u64, Error> {
        expect(wire, Wire::Varint, field)?;
        self.varint()
    }

    pub fn int64(&mut self, wire: Wire, field: &'static str) -> Result<i64, Error> {
        Ok(self.varint_of(wire, field)?.cast_signed())
    }

    pub fn int32(&mut self, wire: Wire, field: &'static str) -> Result<i32, Error> {
        i32::try_from(self.int64(wire, field)?).map_err(|_| Error::Range(field))
    }

    pub fn double(&mut self, wire: Wire, field: &'static str) -> Result<f64, Error> {
        expect(wire, Wire::Fixed64, field)?;
        self.array().map(f64::from_le_bytes)
    }

    pub fn bytes(&mut self, wire: Wire, field: &'static str) -> Result<&'a [u8], Error> {
        expect(wire, Wire::Bytes, field)?;
        self.sized()
    }

    pub fn text(&mut self, wire: Wire, field: &'static str) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(wire, field)?).map_err(|_| Error::Utf8(field))
    }

    /// Passes over a value, a whole group if it is one.
    pub fn skip(&mut self, wire: Wire) -> Result<(), Error> {
        let mut open = 0_usize;
        let mut wire = wire;
        loop {
            match wire {
                Wire::Varint => self.varint().map(drop)?,
                Wire::Fixed64 => self.array::<8>().map(drop)?,
                Wire::Fixed32 => self.array::<4>().map(drop)?,
                Wire::Bytes => self.sized().map(drop)?,
                Wire::Group => open += 1,
                Wire::EndGroup => open = open.checked_sub(1).ok_or(Error::EndOfGroup)?,
            }
            if open == 0 {
                return Ok(());
            }
            wire = self.key()?.ok_or(Error::Eof)?.1;
        }
    }

    fn sized(&mut self) -> Result<&'a [u8], Error> {
        let length = usize::try_from(self.varint()?).map_err(|_| Error::Eof)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Eof)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Error::Eof)?;
        self.0 = rest;
        Ok(*taken)
    }
}

fn expect(wire: Wire, wanted: Wire, field: &'static str) -> Result<(), Error> {
    if wire == wanted { Ok(()) } else { Err(Error::WrongWire { wire: wire as u64, field }) }
}
