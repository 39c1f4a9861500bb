//! Who looks into the control plane of a node: nobody in production, the testbed in the simulator.

#[cfg(not(madsim))]
mod imp {
    use newtmq_node::{ClusterEvent, Control};
    use tokio::sync::mpsc;

    use crate::cluster::driver::{ControlDriver, Event};
    use crate::cluster::log::LogError;

    /// Nobody.
    #[derive(Debug, Clone, Default)]
    pub struct Watched(());

    /// Nobody.
    #[derive(Debug, Clone, Default)]
    pub struct Hearer(());

    impl Watched {
        /// Who is told of events.
        #[must_use]
        pub fn hearer(&self) -> Hearer {
            Hearer(())
        }

        /// Runs a driver to its end.
        ///
        /// # Errors
        /// The driver's.
        pub async fn run(self, driver: ControlDriver, _: mpsc::Sender<Event>) -> Result<(), LogError> {
            driver.run().await
        }
    }

    impl Hearer {
        /// Something has happened.
        #[inline]
        pub fn heard(&self, _: &Control, _: &ClusterEvent) {}
    }
}

#[cfg(madsim)]
mod imp {
    use std::fmt;
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::task::Poll;

    use newtmq_node::{ClusterEvent, Control};
    use tokio::sync::mpsc;

    use crate::cluster::driver::{ControlDriver, Event};
    use crate::cluster::log::LogError;

    /// The control plane of a node as the testbed sees it, while it runs. Clones are the same one.
    #[derive(Clone, Default)]
    pub struct Watched {
        hearer: Hearer,
        inside: Arc<Mutex<Inside>>,
    }

    type Inside = Option<(ControlDriver, mpsc::Sender<Event>)>;

    /// A control plane that somebody looks at.
    pub struct Looking<'a>(MutexGuard<'a, Inside>);

    /// Who is told of the events of a cluster, at once.
    #[derive(Clone, Default)]
    pub struct Hearer(Option<Arc<Hear>>);

    type Hear = dyn Fn(&Control, &ClusterEvent) + Send + Sync;

    impl Watched {
        /// `hear` is called with each event. It must not look into the node.
        #[must_use]
        pub fn by(hear: impl Fn(&Control, &ClusterEvent) + Send + Sync + 'static) -> Watched {
            Watched { hearer: Hearer(Some(Arc::new(hear))), inside: Arc::default() }
        }

        /// Who is told of events.
        #[must_use]
        pub fn hearer(&self) -> Hearer {
            self.hearer.clone()
        }

        /// Runs a driver to its end, and has others look into it between its turns.
        ///
        /// # Errors
        /// The driver's.
        pub async fn run(self, driver: ControlDriver, events: mpsc::Sender<Event>) -> Result<(), LogError> {
            *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Some((driver, events));
            let driver = poll_fn(|context| {
                let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
                let pending = inside.as_mut().is_some_and(|(driver, _)| driver.poll(context).is_pending());
                if pending { Poll::Pending } else { Poll::Ready(inside.take()) }
            });
            match driver.await {
                Some((driver, _)) => driver.ended().await,
                None => Ok(()),
            }
        }

        /// Has its driver wait while somebody looks.
        #[must_use]
        pub fn lock(&self) -> Looking<'_> {
            Looking(self.inside.lock().unwrap_or_else(PoisonError::into_inner))
        }

        /// Lets go of a driver whose node is gone.
        pub fn forget(&self) {
            let gone = self.inside.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(gone);
        }
    }

    impl Looking<'_> {
        /// The control plane; none if it does not run.
        #[must_use]
        pub fn control(&self) -> Option<&Control> {
            self.0.as_ref().map(|(driver, _)| driver.control())
        }

        /// Where its driver hears of what happens outside.
        #[must_use]
        pub fn events(&self) -> Option<mpsc::Sender<Event>> {
            self.0.as_ref().map(|(_, events)| events.clone())
        }
    }

    impl fmt::Debug for Watched {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Watched")
        }
    }

    impl Hearer {
        /// Something has happened.
        pub fn heard(&self, control: &Control, event: &ClusterEvent) {
            if let Some(hear) = &self.0 {
                hear(control, event);
            }
        }
    }
}

#[cfg(madsim)]
pub use imp::Looking;
pub use imp::{Hearer, Watched};
