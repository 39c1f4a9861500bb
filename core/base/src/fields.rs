//! Fields of binary records: numbers in groups of seven bits, texts and bytes with their length in front. The log's records
//! and the frames between nodes are made of them.

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Put<'a>(pub &'a mut Vec<u8>);

impl Put<'_> {
    /// One byte.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    /// A number in groups of seven bits, the lowest first; 1 to 10 bytes.
    pub fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8)
    }

    /// One byte, 0 or 1.
    pub fn flag(&mut self, flag: bool) -> &mut Self {
        self.byte(u8::from(flag))
    }

    /// Bytes behind their number.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// UTF-8 behind the number of its bytes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }
}

/// Takes fields off the front of a slice. Wrong bytes give an error, never a panic or a large reservation.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a>(pub &'a [u8]);

/// Bytes that are not the fields that they should be: what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidField(pub &'static str);

impl core::fmt::Display for InvalidField {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for InvalidField {}

impl<'a> Take<'a> {
    /// One byte.
    ///
    /// # Errors
    /// There is none.
    pub fn byte(&mut self) -> Result<u8, InvalidField> {
        let (&byte, rest) = self.0.split_first().ok_or(InvalidField("its end is missing"))?;
        self.0 = rest;
        Ok(byte)
    }

    /// What [`Put::flag`] wrote.
    ///
    /// # Errors
    /// The byte is neither 0 nor 1, or missing.
    pub fn flag(&mut self) -> Result<bool, InvalidField> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(InvalidField("a flag that is neither 0 nor 1")),
        }
    }

    /// What [`Put::number`] wrote.
    ///
    /// # Errors
    /// It is longer than 64 bits, or its end is missing.
    pub fn number(&mut self) -> Result<u64, InvalidField> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(InvalidField("a number that is too long"))
    }

    /// A number of 32 bits.
    ///
    /// # Errors
    /// It is larger, or missing.
    pub fn number32(&mut self) -> Result<u32, InvalidField> {
        u32::try_from(self.number()?).map_err(|_| InvalidField("a number that is too large"))
    }

    /// A number of 16 bits.
    ///
    /// # Errors
    /// It is larger, or missing.
    pub fn number16(&mut self) -> Result<u16, InvalidField> {
        u16::try_from(self.number()?).map_err(|_| InvalidField("a number that is too large"))
    }

    /// How many of something follow; each takes a byte at least, so that a wrong number reserves no memory.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn count(&mut self) -> Result<usize, InvalidField> {
        let count = self.number()?;
        if count > self.0.len() as u64 { Err(InvalidField("its end is missing")) } else { Ok(count as usize) }
    }

    /// What [`Put::bytes`] wrote.
    ///
    /// # Errors
    /// There are fewer bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], InvalidField> {
        let len = self.count()?;
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(bytes)
    }

    /// What [`Put::text`] wrote.
    ///
    /// # Errors
    /// There are fewer bytes, or they are not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, InvalidField> {
        core::str::from_utf8(self.bytes()?).map_err(|_| InvalidField("a text that is not UTF-8"))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(self) -> Result<(), InvalidField> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidField("bytes after its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidField, Put, Take};

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            Put(&mut bytes).number(value).text("é").flag(true);
            let mut take = Take(&bytes);
            assert_eq!((take.number(), take.text(), take.flag()), (Ok(value), Ok("é"), Ok(true)));
            assert_eq!(take.end(), Ok(()));
        }
    }

    #[test]
    fn wrong_bytes_are_told() {
        assert_eq!(Take(&[0x80]).number(), Err(InvalidField("its end is missing")));
        assert_eq!(Take(&[0xFF; 11]).number(), Err(InvalidField("a number that is too long")));
        assert_eq!(Take(&[9, 1]).bytes(), Err(InvalidField("its end is missing")));
        assert_eq!(Take(&[1, 0xFF]).text(), Err(InvalidField("a text that is not UTF-8")));
        assert_eq!(Take(&[2]).flag(), Err(InvalidField("a flag that is neither 0 nor 1")));
        assert_eq!(Take(&[0]).end(), Err(InvalidField("bytes after its end")));
    }
}
