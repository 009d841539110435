//! Many devices in one process.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Mutex;

use crate::{AppleDevice, Family, Http, KeyPool, Result, Shape};

/// How a fleet is made.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// How many devices.
    pub devices: usize,
    /// How many do something at the same time.
    pub concurrency: usize,
    /// Their families, in turn.
    pub families: Vec<Family>,
    /// Where their keys come from.
    pub keys: KeyPool,
    /// The shape of their signatures.
    pub shape: Shape,
}

impl FleetOptions {
    /// This many devices of all families, sixteen of them busy at a time, every one with its own key.
    #[must_use]
    pub fn new(devices: usize) -> Self {
        Self {
            devices,
            concurrency: 16,
            families: vec![Family::Iphone, Family::Ipad, Family::Mac],
            keys: KeyPool::distinct(),
            shape: Shape::DEVICE,
        }
    }
}

/// Devices that share one HTTP client. Each can be used by one task at a time.
#[derive(Debug, Clone)]
pub struct Fleet {
    devices: Vec<Arc<Mutex<AppleDevice>>>,
    concurrency: usize,
}

impl Fleet {
    /// Makes the devices; nothing is sent yet. Keys are made ahead on all cores.
    ///
    /// # Errors
    /// When keys or random bytes cannot be had.
    pub async fn new(http: &Http, options: &FleetOptions) -> Result<Self> {
        let missing = options.devices.saturating_sub(options.keys.ready());
        if options.keys.ready() == 0 {
            options.keys.prepare(missing).await?;
        }
        let families = options.families.iter().copied().cycle();
        let mut devices = Vec::with_capacity(options.devices);
        for (number, family) in (1..=options.devices).zip(families) {
            let device = AppleDevice::builder(family, http.clone())
                .name(format!("Simulated {} {number}", family.noun()))
                .keys(options.keys.clone())
                .shape(options.shape)
                .build()?;
            devices.push(Arc::new(Mutex::new(device)));
        }
        Ok(Self { devices, concurrency: options.concurrency.max(1) })
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &[Arc<Mutex<AppleDevice>>] {
        &self.devices
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Does the same with every device, a bounded number at a time. The results come in the order of
    /// the devices.
    pub async fn each<T, F, Fut>(&self, act: F) -> Vec<T>
    where
        F: Fn(usize, Arc<Mutex<AppleDevice>>) -> Fut,
        Fut: Future<Output = T>,
    {
        stream::iter(self.devices.iter().cloned().enumerate().map(|(number, device)| act(number, device)))
            .buffered(self.concurrency)
            .collect()
            .await
    }

    /// Enrolls every device with a link of its own; `link` is asked for the link of each.
    pub async fn enroll<F, Fut>(&self, link: F) -> Vec<Result<()>>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<String>>,
    {
        self.each(|number, device| {
            let link = link(number);
            async move {
                let link = link.await?;
                device.lock().await.enroll(&link).await
            }
        })
        .await
    }

    /// One session of every device; the number of commands each was given.
    pub async fn poll(&self) -> Vec<Result<usize>> {
        self.each(|_, device| async move { device.lock().await.poll().await.map(|told| told.len()) }).await
    }

    /// One session of every device that is enrolled; the others are passed over.
    pub async fn poll_enrolled(&self) -> Vec<Result<usize>> {
        self.each(|_, device| async move {
            let mut device = device.lock().await;
            if device.is_enrolled() { device.poll().await.map(|told| told.len()) } else { Ok(0) }
        })
        .await
    }
}
