//! Short names for what is made of one template.

use client::Failure;
use serde::Serialize;

/// A hash of a template, in upstream's alphabet without vowels. `collisions` makes another of it.
pub fn of(template: &impl Serialize, collisions: Option<i32>) -> Result<String, Failure> {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    // Through a Value, whose maps are sorted: the same template has the same bytes.
    let value = serde_json::to_value(template).map_err(Failure::internal)?;
    let mut bytes = serde_json::to_vec(&value).map_err(Failure::internal)?;
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    // FNV-1a, 32 bits.
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let letter = |digit: u8| ALPHABET.get(usize::from(digit) % ALPHABET.len()).copied().map_or('b', char::from);
    Ok(hash.to_string().bytes().map(letter).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hash_is_of_the_template_and_of_the_collisions() {
        let one = of(&json!({"a": 1, "b": 2}), None).unwrap();
        assert_eq!(one, of(&json!({"b": 2, "a": 1}), None).unwrap());
        assert_ne!(one, of(&json!({"a": 1, "b": 3}), None).unwrap());
        assert_ne!(one, of(&json!({"a": 1, "b": 2}), Some(1)).unwrap());
    }
}
