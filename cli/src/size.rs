//! Amounts of memory and disk as people write them.

/// `512MiB`, `2GiB`, `1TiB`, or a plain number of MiB.
pub fn memory_mib(text: &str) -> Result<i64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "m" | "mi" | "mib" => 1,
        "g" | "gi" | "gib" => 1024,
        "t" | "ti" | "tib" => 1024 * 1024,
        _ => return Err(format!("`{text}` is no amount of memory; write 512MiB, 2GiB, or a number of MiB")),
    };
    times(text, number, factor)
}

/// `6GiB`, `1TiB`, or a plain number of GiB.
pub fn disk_gib(text: &str) -> Result<i64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "g" | "gi" | "gib" => 1,
        "t" | "ti" | "tib" => 1024,
        _ => return Err(format!("`{text}` is no size of a disk; write 6GiB, 1TiB, or a number of GiB")),
    };
    times(text, number, factor)
}

/// `4096`, `64KiB`, `1MiB`.
pub fn bytes(text: &str) -> Result<i64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        _ => return Err(format!("`{text}` is no number of bytes; write 4096, 64KiB or 1MiB")),
    };
    times(text, number, factor)
}

/// `2MiB` or `1GiB`, as KiB.
pub fn huge_page_kib(text: &str) -> Result<i64, String> {
    let (number, unit) = split(text)?;
    match unit.as_str() {
        "m" | "mi" | "mib" => times(text, number, 1024),
        "g" | "gi" | "gib" => times(text, number, 1024 * 1024),
        _ => Err(format!("`{text}` is no page size; write 2MiB or 1GiB")),
    }
}

/// `2GiB`, `1536MiB`: the largest unit that leaves no rest.
#[must_use]
pub fn show_mib(mib: i64) -> String {
    if mib != 0 && mib % 1024 == 0 { format!("{}GiB", mib / 1024) } else { format!("{mib}MiB") }
}

fn split(text: &str) -> Result<(i64, String), String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse().map_err(|_| format!("`{text}` does not begin with a whole number"))?;
    Ok((number, unit.trim().to_ascii_lowercase()))
}

fn times(text: &str, number: i64, factor: i64) -> Result<i64, String> {
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_as_people_write_it() {
        for (text, mib) in
            [("512MiB", 512), ("2GiB", 2048), ("2g", 2048), ("1TiB", 1 << 20), ("64", 64), ("3 GiB", 3072)]
        {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        for text in ["", "GiB", "1.5GiB", "-1", "2GB", "2 parsecs", "9223372036854775807GiB"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn disks_are_whole_gib() {
        assert_eq!(disk_gib("6GiB"), Ok(6));
        assert_eq!(disk_gib("6"), Ok(6));
        assert_eq!(disk_gib("2TiB"), Ok(2048));
        assert!(disk_gib("512MiB").is_err());
    }

    #[test]
    fn pages_and_bytes() {
        assert_eq!(huge_page_kib("2MiB"), Ok(2048));
        assert_eq!(huge_page_kib("1GiB"), Ok(1_048_576));
        assert!(huge_page_kib("2048").is_err());
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("100"), Ok(100));
    }

    #[test]
    fn amounts_are_shown_in_the_unit_that_fits() {
        assert_eq!(show_mib(2048), "2GiB");
        assert_eq!(show_mib(1536), "1536MiB");
        assert_eq!(show_mib(0), "0MiB");
    }
}
