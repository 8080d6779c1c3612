//! Names that the API server makes for `metadata.generateName`.

use rand::{Rng, RngExt};

/// Letters and digits that spell no words and are not mistaken for each other (upstream's alphabet).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;
/// The whole name has room in a DNS label.
const BASE_BYTES_MAX: usize = 63 - SUFFIX_CHARS;

/// Five random characters, or as many as wanted.
pub fn suffix(chars: usize, rng: &mut impl Rng) -> String {
    (0..chars).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// A name from its beginning, which is cut where the whole would be too long.
pub fn generate(base: &str, rng: &mut impl Rng) -> String {
    let mut end = base.len().min(BASE_BYTES_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], suffix(SUFFIX_CHARS, rng))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn names_are_long_enough_and_no_longer() {
        let mut rng = SmallRng::seed_from_u64(1);
        let name = generate("web-", &mut rng);
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_ne!(generate("web-", &mut rng), name);
        assert_eq!(generate(&"x".repeat(100), &mut rng).len(), 63);
        assert!(generate(&"ö".repeat(100), &mut rng).len() <= 63);
    }
}
