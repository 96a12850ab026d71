// SPDX-License-Identifier: GPL-2.0

//! Tests of values that belong to a device.

use super::{
    ensure,
    fixture::{
        spawn,
        with_platform_device, //
    }, //
};
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres::{
        self,
        Devres,
        DevresSrcu,
        Kind, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Completion,
        SetOnce, //
    },
    time::{
        delay::fsleep,
        Delta, //
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

            devres::register_early(
                dev,
                Ok::<_, Error>(Nosy {
                    dev: dev.bound(),
                    resource: resource.clone(),
                    log: log.clone(),
                }),
                GFP_KERNEL,
            )?;
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
                    devres::register_early(dev, Ok::<_, Error>(Keeper(later.clone())), GFP_KERNEL)?;
                }

                let lent = devres::register_lent(
                    dev,
                    Ok::<_, Error>(KBox::new(Witness(log.clone()), GFP_KERNEL)?),
                    GFP_KERNEL,
                )?;
                let borrower = Borrower {
                    lent,
                    log: log.clone(),
                };

                if older {
                    later.populate(borrower);
                } else {
                    devres::register_early(dev, Ok::<_, Error>(borrower), GFP_KERNEL)?;
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

            ensure!(
                devres::register_early::<u32>(dev, Err::<u32, _>(EPROTO), GFP_KERNEL)
                    == Err(EPROTO)
            );
            ensure!(matches!(
                DevresSrcu::<ForLt!(u32)>::new(dev, Err::<u32, _>(EPROTO)),
                Err(e) if e == EPROTO
            ));
            Ok(())
        })
    }

    struct Shareable<'a> {
        dev: &'a Device<Bound>,
        _witness: Witness,
    }

    type Handle = DevresSrcu<ForLt!(Shareable<'_>)>;

    fn share(dev: &Device<Core<'_>>, log: &Arc<Log>) -> Result<Handle> {
        DevresSrcu::<ForLt!(Shareable<'_>)>::new(
            dev,
            Ok::<_, Error>(Shareable {
                dev: dev.bound(),
                _witness: Witness(log.clone()),
            }),
        )
    }

    /// A handle leads to the value while the device is bound, and to nothing afterwards.
    #[test]
    fn accessible_until_unbind() -> Result {
        let log = log()?;
        let mut kept = None;

        with_platform_device(|pdev| {
            let handle = share(pdev.as_ref(), &log)?;
            let other = handle.clone();

            // Nested use is fine.
            ensure!(handle.try_access_with(
                |value| other.try_access_with(|same| core::ptr::eq(value.dev, same.dev))
            )??);
            kept = Some(handle);
            Ok(())
        })?;

        let kept = kept.ok_or(EINVAL)?;
        ensure!(log.dropped.load(Relaxed) == 1);
        ensure!(kept.try_access_with(|_| ()) == Err(ENODEV));
        Ok(())
    }

    /// Unbinding waits for who uses the value, though that sleeps.
    #[test]
    fn unbind_waits() -> Result {
        let log = log()?;
        let entered = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        let mut user = None;

        with_platform_device(|pdev| {
            let handle = share(pdev.as_ref(), &log)?;
            let (theirs, log) = (entered.clone(), log.clone());

            user = Some(spawn(move || {
                handle.try_access_with(|_| {
                    theirs.complete_all();
                    fsleep(Delta::from_millis(50));
                    log.dropped.load(Relaxed)
                })
            })?);
            entered.wait_for_completion();
            Ok(())
        })?;

        ensure!(log.dropped.load(Relaxed) == 1);
        // It was still there when its user looked.
        ensure!(user.ok_or(EIO)?.join(|dropped| *dropped == Ok(0))?);
        Ok(())
    }

    /// Resources are found by their kind, and by nothing else.
    #[test]
    fn told_apart() -> Result {
        static ONE: Kind = Kind::new();
        static OTHER: Kind = Kind::new();

        with_platform_device(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let new = |value: u32| KBox::new(value, GFP_KERNEL);
            // SAFETY: All values are of that type, and the result is used up at once.
            let find = |kind: &'static Kind| unsafe { kind.find::<KBox<u32>>(dev) }.copied();

            ONE.add_only(dev, new(1)?)?;
            OTHER.add_only(dev, new(2)?)?;
            ensure!(ONE.add_only(dev, new(3)?) == Err(EBUSY));
            ensure!(find(&ONE) == Some(1) && find(&OTHER) == Some(2));

            ensure!(ONE.release(dev) && !ONE.release(dev));
            ensure!(find(&ONE).is_none() && find(&OTHER) == Some(2));
            Ok(())
        })
    }
}
