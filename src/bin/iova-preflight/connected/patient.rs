//! A definition of a libvirt that may stop answering.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::live::Definition;
use super::redefine::{Definitions, NotDefined};
use super::redefinition::Redefinable;

/// What is done with the definition, in the thread that has it.
type Call = Box<dyn FnOnce(&mut Definition) + Send>;

/// A definition whose libvirt gets so much time for each answer. A call of libvirt cannot be cancelled: a thread that
/// gets no answer is left behind, and the process ends without it.
pub(crate) struct PatientDefinition {
    calls: Sender<Call>,
    patience: Duration,
}

impl PatientDefinition {
    /// Opens `uri` for writing and finds the guest.
    ///
    /// # Errors
    /// libvirt's, or it does not answer.
    pub fn open(uri: &str, name: &str, patience: Duration) -> Result<Self> {
        let (calls, queue) = mpsc::channel::<Call>();
        let (sender, opened) = mpsc::channel();
        let (uri, name) = (uri.to_owned(), name.to_owned());
        thread::spawn(move || {
            // Whoever asked may have gone.
            let _ = match Definition::open(&uri, &name) {
                Ok(mut definition) => {
                    let told = sender.send(Ok(()));
                    queue.into_iter().for_each(|call| call(&mut definition));
                    told
                }
                Err(error) => sender.send(Err(error)),
            };
        });
        answer(&opened, patience)??;
        Ok(Self { calls, patience })
    }

    fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut Definition) -> T + Send + 'static) -> Result<T> {
        let (sender, result) = mpsc::channel();
        // If the thread is gone, there is no answer either.
        let _ = self.calls.send(Box::new(move |definition| drop(sender.send(call(definition)))));
        answer(&result, self.patience)
    }

    /// Whether it runs at the moment, as far as libvirt says.
    pub fn is_running(&self) -> bool {
        self.call(|definition| definition.is_running()).unwrap_or(false)
    }
}

fn answer<T>(receiver: &Receiver<T>, patience: Duration) -> Result<T> {
    receiver.recv_timeout(patience).map_err(|error| match error {
        RecvTimeoutError::Timeout => anyhow!("no answer within {} seconds", patience.as_secs()),
        RecvTimeoutError::Disconnected => anyhow!("no answer"),
    })
}

impl Definitions for PatientDefinition {
    fn read(&mut self) -> Result<String> {
        self.call(Definition::read)?
    }

    fn define(&mut self, xml: &str) -> Result<(), NotDefined> {
        let xml = xml.to_owned();
        self.call(move |definition| definition.define(&xml)).map_err(NotDefined::Unanswered)?
    }
}

impl Redefinable for PatientDefinition {
    fn obstacle(&mut self) -> Result<Option<&'static str>> {
        self.call(Definition::obstacle)?
    }

    fn uuid(&mut self) -> Result<String> {
        self.call(Definition::uuid)?
    }

    fn name(&mut self) -> Result<String> {
        self.call(Definition::name)?
    }
}
