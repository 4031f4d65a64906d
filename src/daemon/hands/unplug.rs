//! Devices that guests are asked to give up. Nobody can make a guest do it, and it may yet do so when nobody waits any
//! more.
//!
//! libvirt's word that a device has left wakes whoever waits for it, and the domain's document says whether it is gone.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use whydown_core::id::{DomainId, RequestId, RunId};
use whydown_core::lifecycle::Answer;
use whydown_core::operation::{OldDevice, OperationKind};
use whydown_libvirt::Refusal;

use super::super::plug::{self, Leaving};
use super::super::sample::Heard;
use super::super::{clock, hands};
use super::Hands;

/// How long a guest may take to give a device up, as in the original.
const PATIENCE: Duration = Duration::from_secs(30);

/// A word that was lost, as libvirtd was away or many came at once, is made good after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A device that a guest was asked to give up, and who waits for that.
pub(super) struct Awaited {
    pub run: RunId,
    pub domain: DomainId,
    pub request: Option<RequestId>,
    pub what: OperationKind,
    pub leaving: Leaving,
    /// Since before it was asked.
    pub heard: Heard,
}

impl Hands {
    /// Asks the guest for a device; gives what is to leave, and what is heard since before it was asked: it may obey at once.
    pub(super) fn ask_to_give_up(
        &self,
        domain: DomainId,
        old: &OldDevice,
    ) -> Result<(Leaving, Heard), Refusal> {
        let (libvirt, heard) = (&self.hypervisor, self.news.hear());
        let leaving = plug::leaving(&libvirt.domain_xml(domain)?, old)?;
        match libvirt.detach_device(domain, &leaving.alias) {
            // One that left meanwhile, as another had asked for it, libvirt does not know any more.
            Err(refusal) if plug::has(&libvirt.domain_xml(domain)?, &leaving)? => Err(refusal),
            _ => Ok((leaving, heard)),
        }
    }

    /// The answer, when the guest has given it up or has had its time, and what the VM is made of then is told.
    pub(super) async fn when_gone(&self, awaited: Awaited) -> Answer {
        let Awaited { run, domain, request, what, leaving, heard } = awaited;
        let done = self.until_gone(domain, leaving, heard).await;
        let hands = self.clone();
        let told = self.call(move || {
            hands.tell_devices(run, domain);
            Ok(())
        });
        let _ = told.await;
        Answer::Performed { run, request, what, outcome: hands::outcome(done) }
    }

    async fn until_gone(&self, domain: DomainId, leaving: Leaving, mut heard: Heard) -> Result<(), Refusal> {
        let until = clock::now().mono.after(PATIENCE);
        loop {
            let (libvirt, its) = (self.hypervisor.clone(), leaving.clone());
            if !self.call(move || plug::has(&libvirt.domain_xml(domain)?, &its)).await? {
                return Ok(());
            }
            let left = until.since(clock::now().mono);
            if left.is_zero() {
                let (alias, seconds) = (&leaving.alias, PATIENCE.as_secs());
                return Err(hands::refused(format!(
                    "the guest has not given {alias} up within {seconds} s, and may yet do so"
                )));
            }
            let _ = tokio::time::timeout(left.min(LOOK_AGAIN), word_of(&mut heard, domain)).await;
        }
    }
}

/// Until there is news of this domain, or some that nobody knows of.
async fn word_of(heard: &mut Heard, domain: DomainId) {
    loop {
        match heard.recv().await {
            Ok(other) if other != domain => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{News, news};
    use super::*;

    const VM: DomainId = DomainId::from_bytes([7; 16]);

    #[tokio::test]
    async fn who_waits_is_woken_by_news_of_this_vm_by_its_end_and_by_what_was_missed() {
        let (news, mut sampler) = news();
        let mut heard = news.hear();
        let other = DomainId::from_bytes([8; 16]);
        for word in [News::of, News::over] {
            news.of(other);
            {
                let mut waiting = std::pin::pin!(word_of(&mut heard, VM));
                let early = tokio::time::timeout(Duration::ZERO, &mut waiting).await;
                assert!(early.is_err(), "another VM is no reason to look");
                word(&news, VM);
                waiting.await;
            }
        }
        for _ in 0..1000 {
            news.of(other);
        }
        word_of(&mut heard, VM).await;
        let mut read = Vec::new();
        while let Ok(id) = sampler.try_recv() {
            read.push(id);
        }
        let mine = read.iter().filter(|id| **id == VM).count();
        assert_eq!(mine, 1, "of a VM that is over nothing is read");
    }
}
