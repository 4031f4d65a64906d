//! Judges what calls name by the policy, where storage that hangs stops nothing: to see what an image names it is read.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use whydown_core::operation::{Migration, SnapshotDisk};

use super::policy::{Forbidden, Policy};
use crate::config::Settings;

/// Documents whose images are looked at, at once.
const LOOKERS: usize = 8;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module page.
#[derive(Debug)]
pub struct Judge {
    policy: Arc<Policy>,
    lookers: Arc<Semaphore>,
}

impl Judge {
    /// As configured.
    pub fn new(settings: &Settings) -> Self {
        Self { policy: Arc::new(Policy::new(settings)), lookers: Arc::new(Semaphore::new(LOOKERS)) }
    }

    /// Whether a document without a declaration may be given to libvirt.
    ///
    /// # Errors
    /// [`Forbidden`] names the element and the key.
    pub async fn document(&self, xml: &str) -> Result<(), Forbidden> {
        let images = self.policy.check(xml)?;
        if images.is_empty() {
            return Ok(());
        }
        let Ok(looker) = self.lookers.clone().try_acquire_owned() else { return Policy::unseen(&images) };
        let (policy, seen) = (self.policy.clone(), images.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let _looker = looker;
            policy.look(&seen)
        });
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(looked)) => looked,
            _ => Policy::unseen(&images),
        }
    }

    /// Whether a VM may be sent there, with this document.
    ///
    /// # Errors
    /// [`Forbidden`] names the address or the element, and the key.
    pub async fn migration(&self, how: &mut Migration) -> Result<(), Forbidden> {
        self.policy.check_destination(&how.destination)?;
        how.memory_uri.as_deref().map_or(Ok(()), |uri| self.policy.check_memory(uri))?;
        if let Some(xml) = how.document.take() {
            let xml = Policy::undeclared(xml)?;
            self.document(&xml).await?;
            how.document = Some(xml);
        }
        Ok(())
    }

    /// Whether new images may lie where a snapshot names them.
    ///
    /// # Errors
    /// [`Forbidden`] names the path and the key.
    pub fn snapshot(&self, disks: &[SnapshotDisk]) -> Result<(), Forbidden> {
        disks.iter().try_for_each(|disk| self.policy.check_image(&disk.file))
    }
}
