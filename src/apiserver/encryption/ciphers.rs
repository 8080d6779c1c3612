//! The ciphers, each with upstream's layout of nonce, text and tag, so that data is exchangeable.

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::iv::FixedLength;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce as BoxNonce, XSalsa20Poly1305};

/// The data was not encrypted with this key, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data does not decrypt with this key")]
pub struct Undecryptable;

const BLOCK_BYTES: usize = 16;
const BOX_NONCE_BYTES: usize = 24;
const BOX_KEY_BYTES: usize = 32;
/// The random number from which a key is derived, in front of the data.
const INFO_BYTES: usize = 32;
pub const SEED_BYTES: usize = 32;

pub enum Cipher {
    /// AES-CBC with padding: IV, text. Nothing binds the text to its place.
    Cbc(Box<Cbc>),
    /// AES-GCM with the storage key as associated data: nonce, text, tag.
    Gcm(Box<LessSafeKey>),
    /// XSalsa20 and Poly1305: nonce, tag, text.
    Secretbox(Box<XSalsa20Poly1305>),
    /// AES-256-GCM with a key of its own for every value, derived from a seed: what to derive it with, nonce, text,
    /// tag.
    Derived(Seed),
}

pub struct Cbc {
    encrypting: PaddedBlockEncryptingKey,
    decrypting: PaddedBlockDecryptingKey,
}

pub struct Seed(Prk);

impl Cipher {
    /// `None` when AES has no keys of this size.
    pub fn cbc(key: &[u8]) -> Option<Cipher> {
        let algorithm = match key.len() {
            16 => &AES_128,
            24 => &AES_192,
            32 => &AES_256,
            _ => return None,
        };
        let unbound = || UnboundCipherKey::new(algorithm, key).ok();
        let encrypting = PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).ok()?;
        let decrypting = PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).ok()?;
        Some(Cipher::Cbc(Box::new(Cbc { encrypting, decrypting })))
    }

    pub fn gcm(key: &[u8]) -> Option<Cipher> {
        gcm(key).map(|key| Cipher::Gcm(Box::new(key)))
    }

    pub fn secretbox(key: &[u8]) -> Option<Cipher> {
        let cipher = (key.len() == BOX_KEY_BYTES).then(|| XSalsa20Poly1305::new_from_slice(key).ok()).flatten()?;
        Some(Cipher::Secretbox(Box::new(cipher)))
    }

    pub fn derived(seed: &[u8]) -> Option<Cipher> {
        (seed.len() >= SEED_BYTES).then(|| Cipher::Derived(Seed(Prk::new_less_safe(HKDF_SHA256, seed))))
    }

    /// Appends what is stored for `plain` at the storage key `place`.
    pub fn seal(&self, plain: &[u8], place: &[u8], out: &mut Vec<u8>) -> Result<(), Undecryptable> {
        match self {
            Cipher::Cbc(cbc) => {
                let mut text = plain.to_vec();
                let context = cbc.encrypting.encrypt(&mut text).map_err(|_| Undecryptable)?;
                let iv: &[u8] = (&context).try_into().map_err(|_| Undecryptable)?;
                out.extend_from_slice(iv);
                out.extend_from_slice(&text);
            }
            Cipher::Gcm(key) => seal_gcm(key, plain, place, out)?,
            Cipher::Secretbox(key) => {
                let nonce: [u8; BOX_NONCE_BYTES] = random()?;
                let text = key.encrypt(BoxNonce::from_slice(&nonce), plain).map_err(|_| Undecryptable)?;
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&text);
            }
            Cipher::Derived(seed) => {
                let info: [u8; INFO_BYTES] = random()?;
                out.extend_from_slice(&info);
                seal_gcm(&seed.key(&info)?, plain, place, out)?;
            }
        }
        Ok(())
    }

    /// What was stored at `place`.
    pub fn open(&self, data: &[u8], place: &[u8]) -> Result<Vec<u8>, Undecryptable> {
        match self {
            Cipher::Cbc(cbc) => {
                let (iv, text) = data.split_at_checked(BLOCK_BYTES).ok_or(Undecryptable)?;
                if text.is_empty() || !text.len().is_multiple_of(BLOCK_BYTES) {
                    return Err(Undecryptable);
                }
                let iv: [u8; BLOCK_BYTES] = iv.try_into().map_err(|_| Undecryptable)?;
                let mut text = text.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                let bytes = cbc.decrypting.decrypt(&mut text, context).map_err(|_| Undecryptable)?.len();
                text.truncate(bytes);
                Ok(text)
            }
            Cipher::Gcm(key) => open_gcm(key, data, place),
            Cipher::Secretbox(key) => {
                let (nonce, text) = data.split_at_checked(BOX_NONCE_BYTES).ok_or(Undecryptable)?;
                key.decrypt(BoxNonce::from_slice(nonce), text).map_err(|_| Undecryptable)
            }
            Cipher::Derived(seed) => {
                let (info, data) = data.split_at_checked(INFO_BYTES).ok_or(Undecryptable)?;
                open_gcm(&seed.key(info)?, data, place)
            }
        }
    }
}

impl Seed {
    fn key(&self, info: &[u8]) -> Result<LessSafeKey, Undecryptable> {
        struct Bytes32;
        impl KeyType for Bytes32 {
            fn len(&self) -> usize {
                32
            }
        }
        let mut key = [0; 32];
        let info = [info];
        let expanded = self.0.expand(&info, Bytes32).map_err(|_| Undecryptable)?;
        expanded.fill(&mut key).map_err(|_| Undecryptable)?;
        gcm(&key).ok_or(Undecryptable)
    }
}

fn gcm(key: &[u8]) -> Option<LessSafeKey> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        _ => return None,
    };
    UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new)
}

fn seal_gcm(key: &LessSafeKey, plain: &[u8], place: &[u8], out: &mut Vec<u8>) -> Result<(), Undecryptable> {
    let nonce: [u8; NONCE_LEN] = random()?;
    let mut text = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut text)
        .map_err(|_| Undecryptable)?;
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&text);
    Ok(())
}

fn open_gcm(key: &LessSafeKey, data: &[u8], place: &[u8]) -> Result<Vec<u8>, Undecryptable> {
    let (nonce, text) = data.split_at_checked(NONCE_LEN).ok_or(Undecryptable)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Undecryptable)?;
    let mut text = text.to_vec();
    let bytes = key.open_in_place(nonce, Aad::from(place), &mut text).map_err(|_| Undecryptable)?.len();
    text.truncate(bytes);
    Ok(text)
}

/// From the system's source; that it fails is not expected.
pub fn random<const N: usize>() -> Result<[u8; N], Undecryptable> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Undecryptable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn all() -> Vec<Cipher> {
        let made = [
            Cipher::cbc(KEY),
            Cipher::cbc(&KEY[..16]),
            Cipher::gcm(KEY),
            Cipher::gcm(&KEY[..24]),
            Cipher::secretbox(KEY),
            Cipher::derived(KEY),
        ];
        made.into_iter().map(Option::unwrap).collect()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_nothing_else_does(
            plain in prop::collection::vec(any::<u8>(), 0..200),
            noise in prop::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(),
        ) {
            for cipher in all() {
                let mut sealed = Vec::new();
                cipher.seal(&plain, b"/registry/x", &mut sealed).unwrap();
                prop_assert_eq!(cipher.open(&sealed, b"/registry/x").unwrap(), plain.clone());
                prop_assert!(cipher.open(&noise, b"/registry/x").ok().as_ref() != Some(&plain) || matches!(cipher, Cipher::Cbc(_)));
                if !matches!(cipher, Cipher::Cbc(_)) {
                    let at = flip.index(sealed.len());
                    sealed[at] ^= 1;
                    prop_assert!(cipher.open(&sealed, b"/registry/x").is_err());
                }
            }
        }
    }

    #[test]
    fn a_value_stays_where_it_was_put() {
        for cipher in [Cipher::gcm(KEY).unwrap(), Cipher::derived(KEY).unwrap()] {
            let mut sealed = Vec::new();
            cipher.seal(b"secret", b"/registry/a", &mut sealed).unwrap();
            assert_eq!(cipher.open(&sealed, b"/registry/b"), Err(Undecryptable));
        }
    }

    #[test]
    fn data_of_other_makers_opens() {
        let open = |cipher: Option<Cipher>, data: &str| {
            let opened = cipher.unwrap().open(&hex::decode(data).unwrap(), b"/registry/secrets/default/a").unwrap();
            String::from_utf8(opened).unwrap()
        };
        // Made with Python's `cryptography`, in upstream's layout.
        assert_eq!(open(Cipher::cbc(KEY), CBC), "the quick brown fox");
        assert_eq!(open(Cipher::gcm(KEY), GCM), "the quick brown fox");
        assert_eq!(open(Cipher::derived(KEY), DERIVED), "the quick brown fox");
        // The example of NaCl's own documentation.
        let key = hex::decode("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").unwrap();
        let sealed = concat!(
            "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37",
            "f3ffc770 3f9400e5 2a7dfb4b 3d3305d9 8e993b9f 48681273 c29650ba 32fc76ce 48332ea7 164d96a4 476fb8c5 31a1186a",
            "c0dfc17c 98dce87b 4da7f011 ec48c972 71d2c20f 9b928fe2 270d6fb8 63d51738 b48eeee3 14a7cc8a b932164548e526ae",
            "90224368 517acfea bd6bb373 2bc0e9da 99832b61 ca01b6de 56244a9e 88d5f9b3 7973f622 a43d14a6 599b1f65 4cb45a74e355a5"
        );
        let opened =
            Cipher::secretbox(&key).unwrap().open(&hex::decode(sealed.replace(' ', "")).unwrap(), b"").unwrap();
        assert_eq!((opened.len(), &opened[..4]), (131, &[0xbe, 0x07, 0x5f, 0xc5][..]));
    }

    #[test]
    fn keys_of_wrong_sizes_are_none() {
        assert!(Cipher::cbc(&KEY[..15]).is_none() && Cipher::gcm(b"").is_none());
        assert!(Cipher::secretbox(&KEY[..31]).is_none() && Cipher::derived(&KEY[..31]).is_none());
    }

    const CBC: &str =
        "000102030405060708090a0b0c0d0e0fa27455c7c92e78111d50cd81e6521f3edbb68f0f91fdb7603f38b7194fb79adf";
    const GCM: &str = "000102030405060708090a0b598dde5ca86dbbcfc3fc13cc1eb8bf2480677b1b5cb0de2c0aab164a62c099919cf84c";
    const DERIVED: &str = "6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283000102030405060708090a0b3ace1cabe872e9f3770bf86cd9ab8d31e5f821599c7c2a30044e39a2b80225fb9eaff9";
}
