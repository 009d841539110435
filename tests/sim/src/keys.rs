//! A pool of RSA keys. Making one takes some hundred milliseconds of one core, so a fleet makes them
//! ahead of time, on all cores, and can keep them in a file between runs.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_certs::KeyPair;
use secrecy::ExposeSecret as _;

use crate::files;
use crate::{Error, Result};

/// Hands out RSA-2048 keys. Cloning shares the pool.
#[derive(Debug, Clone, Default)]
pub struct KeyPool {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    ready: VecDeque<KeyPair>,
    /// Put every key back after handing it out.
    reuse: bool,
}

impl KeyPool {
    /// An empty pool: every key is made when it is asked for, no two devices share one.
    #[must_use]
    pub fn distinct() -> Self {
        Self::default()
    }

    /// A pool that hands out the same few keys again and again, for tests that need many devices and
    /// do not look at keys. A server can tell: two devices with one key are still two certificates.
    ///
    /// # Errors
    /// When OpenSSL fails.
    pub async fn shared(count: usize) -> Result<Self> {
        let pool = Self::default();
        pool.prepare(count.max(1)).await?;
        pool.lock().reuse = true;
        Ok(pool)
    }

    /// A pool that begins with the keys of a PEM file, makes what is missing and writes the file again
    /// (mode 0600). The keys are worth nothing outside tests, but they are still keys.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no keys.
    pub async fn cached(path: &Path, count: usize) -> Result<Self> {
        let pool = Self::default();
        let path: PathBuf = path.to_owned();
        if let Some(pem) = files::read_if_there(&path)? {
            let keys = read_pems(&pem).ok_or_else(|| Error::File {
                path: path.display().to_string(),
                reason: "not a file of PEM keys".to_owned(),
            })?;
            pool.lock().ready.extend(keys);
        }
        let have = pool.lock().ready.len();
        if have < count {
            pool.prepare(count - have).await?;
            let mut pem = Vec::new();
            for key in &pool.lock().ready {
                pem.extend_from_slice(key.to_pkcs8_pem()?.expose_secret());
            }
            files::write_private(&path, &pem)?;
        }
        Ok(pool)
    }

    /// Makes `count` more keys on all cores.
    ///
    /// # Errors
    /// When OpenSSL fails.
    pub async fn prepare(&self, count: usize) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = count.div_ceil(cores);
        let mut left = count;
        let mut workers = Vec::new();
        while left > 0 {
            let mine = share.min(left);
            left -= mine;
            let pool = self.clone();
            workers.push(tokio::task::spawn_blocking(move || -> Result<()> {
                for _ in 0..mine {
                    let key = KeyPair::generate_rsa2048()?;
                    pool.lock().ready.push_back(key);
                }
                Ok(())
            }));
        }
        for worker in workers {
            worker.await.map_err(|error| Error::Usage(format!("a key worker failed: {error}")))??;
        }
        Ok(())
    }

    /// How many keys are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// The next key: a prepared one, or a new one.
    ///
    /// # Errors
    /// When OpenSSL fails.
    pub async fn take(&self) -> Result<KeyPair> {
        let prepared = {
            let mut inner = self.lock();
            let key = inner.ready.pop_front();
            if inner.reuse {
                inner.ready.extend(key.clone());
            }
            key
        };
        match prepared {
            Some(key) => Ok(key),
            None => Ok(tokio::task::spawn_blocking(KeyPair::generate_rsa2048)
                .await
                .map_err(|error| Error::Usage(format!("a key worker failed: {error}")))??),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_pems(pem: &[u8]) -> Option<Vec<KeyPair>> {
    const END: &str = "-----END PRIVATE KEY-----";
    let text = std::str::from_utf8(pem).ok()?;
    text.split_inclusive(END)
        .filter(|part| part.contains(END))
        .map(|part| KeyPair::from_pem(part.trim_start().as_bytes()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_distinct_unless_shared() {
        let pool = KeyPool::distinct();
        pool.prepare(1).await.unwrap();
        let prepared = pool.take().await.unwrap();
        let made = pool.take().await.unwrap();
        assert_ne!(prepared.public_key_der().unwrap(), made.public_key_der().unwrap());

        let pool = KeyPool::shared(1).await.unwrap();
        let one = pool.take().await.unwrap();
        let two = pool.take().await.unwrap();
        assert_eq!(one.public_key_der().unwrap(), two.public_key_der().unwrap());
    }

    #[tokio::test]
    async fn a_file_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.pem");
        let first = KeyPool::cached(&path, 2).await.unwrap();
        let again = KeyPool::cached(&path, 2).await.unwrap();
        assert_eq!(again.ready(), 2);
        assert_eq!(
            first.take().await.unwrap().public_key_der().unwrap(),
            again.take().await.unwrap().public_key_der().unwrap()
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
