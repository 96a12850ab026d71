// SPDX-License-Identifier: GPL-2.0

//! Tests of values that belong to a device.

use super::{
    ensure,
    fixture::with_platform_device, //
};
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres::{
        Devres,
        Shared, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SetOnce, //
    },
    types::ForLt, //
};

/// Counts its drops in the order in which they happen.
struct Witness(Arc<Log>);

struct Log {
    /// How many were dropped before.
    dropped: Atomic<u32>,
    /// What `dropped` was when the last one went whose `Witness` is managed.
    managed_at: Atomic<u32>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }
}

/// A managed value that uses another resource of the device when it is dropped.
struct Nosy<'a> {
    dev: &'a Device<Bound>,
    resource: Arc<SetOnce<Devres<Witness>>>,
    log: Arc<Log>,
}

impl Drop for Nosy<'_> {
    fn drop(&mut self) {
        // The resource is younger, so it would go first if all were released in reverse order.
        if let Some(Ok(witness)) = SetOnce::as_ref(&self.resource).map(|r| r.access(self.dev)) {
            let dropped = witness.0.dropped.load(Relaxed);

            self.log.managed_at.store(dropped + 100, Relaxed);
        }
    }
}

/// Uses a lent value when it is dropped.
struct Borrower<'a> {
    lent: &'a KBox<Witness>,
    log: Arc<Log>,
}

impl Drop for Borrower<'_> {
    fn drop(&mut self) {
        let dropped = self.lent.0.dropped.load(Relaxed);

        self.log.managed_at.store(dropped + 100, Relaxed);
    }
}

fn log() -> Result<Arc<Log>> {
    Ok(Arc::new(
        Log {
            dropped: Atomic::new(0),
            managed_at: Atomic::new(0),
        },
        GFP_KERNEL,
    )?)
}

#[kunit_tests(rust_devres_managed)]
mod cases {
    use super::*;

    /// As long as code of a managed value runs, the device is bound and owns all that it did.
    #[test]
    fn goes_before_other_resources() -> Result {
        let log = log()?;

        with_platform_device(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let resource = Arc::new(SetOnce::new(), GFP_KERNEL)?;

            dev.give(Ok::<_, Error>(Nosy {
                dev: dev.bound(),
                resource: resource.clone(),
                log: log.clone(),
            }))?;
            resource.populate(Devres::new(dev, Ok::<_, Error>(Witness(log.clone())))?);
            Ok(())
        })?;

        ensure!(log.dropped.load(Relaxed) == 1);
        ensure!(log.managed_at.load(Relaxed) == 100);
        Ok(())
    }

    /// A lent value may be used by whatever the device was given, also if that is older, and goes
    /// after it.
    #[test]
    fn lent_until_the_end() -> Result {
        for older in [false, true] {
            let log = log()?;

            with_platform_device(|pdev| {
                /// Keeps a borrower that is made later.
                struct Keeper<'a>(#[expect(dead_code)] Arc<SetOnce<Borrower<'a>>>);

                let dev: &Device<Core<'_>> = pdev.as_ref();
                let later = Arc::new(SetOnce::new(), GFP_KERNEL)?;

                if older {
                    dev.give(Ok::<_, Error>(Keeper(later.clone())))?;
                }

                let lent =
                    dev.manage(Ok::<_, Error>(KBox::new(Witness(log.clone()), GFP_KERNEL)?))?;
                let borrower = Borrower {
                    lent,
                    log: log.clone(),
                };

                if older {
                    later.populate(borrower);
                } else {
                    dev.give(Ok::<_, Error>(borrower))?;
                }

                ensure!(log.dropped.load(Relaxed) == 0);
                Ok(())
            })?;

            ensure!(log.dropped.load(Relaxed) == 1);
            ensure!(log.managed_at.load(Relaxed) == 100);
        }

        Ok(())
    }

    /// A failing initialiser leaves nothing behind.
    #[test]
    fn failed_initialiser() -> Result {
        with_platform_device(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();

            ensure!(dev.give::<u32>(Err::<u32, _>(EPROTO)) == Err(EPROTO));
            ensure!(matches!(
                dev.share::<ForLt!(u32)>(Err::<u32, _>(EPROTO)),
                Err(e) if e == EPROTO
            ));
            Ok(())
        })
    }

    struct Shareable<'a> {
        dev: &'a Device<Bound>,
        _witness: Witness,
    }

    type Handle = Shared<ForLt!(Shareable<'_>)>;

    fn share(dev: &Device<Core<'_>>, log: &Arc<Log>) -> Result<Handle> {
        dev.share::<ForLt!(Shareable<'_>)>(Ok::<_, Error>(Shareable {
            dev: dev.bound(),
            _witness: Witness(log.clone()),
        }))
    }

    /// A handle leads to the value while the device is bound, and to nothing afterwards.
    #[test]
    fn shared_until_unbind() -> Result {
        let log = log()?;
        let mut kept = None;

        with_platform_device(|pdev| {
            let handle = share(pdev.as_ref(), &log)?;
            let other = handle.clone();

            // Nested use is fine.
            ensure!(handle.with(|value| other.with(|same| core::ptr::eq(value.dev, same.dev)))??);
            kept = Some(handle);
            Ok(())
        })?;

        let kept = kept.ok_or(EINVAL)?;
        ensure!(log.dropped.load(Relaxed) == 1);
        ensure!(kept.with(|_| ()) == Err(ENODEV));
        kept.close();
        ensure!(log.dropped.load(Relaxed) == 1);
        Ok(())
    }

    /// Closing early drops the value early, once.
    #[test]
    fn closed_early() -> Result {
        let log = log()?;

        with_platform_device(|pdev| {
            let handle = share(pdev.as_ref(), &log)?;

            handle.close();
            ensure!(log.dropped.load(Relaxed) == 1);
            ensure!(handle.with(|_| ()) == Err(ENODEV));
            Ok(())
        })?;

        ensure!(log.dropped.load(Relaxed) == 1);
        Ok(())
    }
}
