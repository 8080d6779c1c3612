//! Digests, and the chain IDs that name a layer together with all layers below it.

use sha2::{Digest, Sha256};

/// `sha256:<hex>` of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `sha256:<hex>` of what was hashed.
pub(crate) fn finish(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}

/// Whether this is a well-formed digest of the one algorithm we take.
pub(crate) fn is_sha256(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(is_hex_64)
}

pub(crate) fn is_hex_64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The chain ID of each layer, bottom first, as the OCI image specification defines it: the lowest layer's is
/// its diff ID, each other's is the digest of the chain ID below, a blank, and its own diff ID.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_id_covers_all_layers_below() {
        let (a, b) = (sha256(b"a"), sha256(b"b"));
        let ids = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(ids[0], a);
        assert_eq!(ids[1], sha256(format!("{a} {b}").as_bytes()));
        assert_ne!(chain_ids(&[b.clone(), a])[1], ids[1]);
    }

    #[test]
    fn digests_are_lower_case_hex_of_one_length() {
        assert!(is_sha256(&sha256(b"")));
        for bad in ["sha256:", "sha256:AB", "sha512:00", &sha256(b"x").to_uppercase(), "../../etc"] {
            assert!(!is_sha256(bad), "{bad}");
        }
    }
}
