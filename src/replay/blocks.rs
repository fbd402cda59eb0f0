//! Logs that are no text made into lines: a thread reads them and hands over blocks of whole lines. Two blocks wait at most.
//!
//! Invariant: a reader that ends without saying so is an error, never a shorter log.

use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, sync_channel};

/// Blocks that wait for whoever reads.
const WAITING: usize = 2;

/// What a thread hands over, as bytes to be read.
pub struct Blocks {
    receive: Receiver<Item>,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

/// The kind of an error that a producer told, whatever reads through it: its words are meant for people as they are.
pub const FAILED: ErrorKind = ErrorKind::BrokenPipe;

enum Item {
    Block(Vec<u8>),
    Failed(String),
    End,
}

impl Blocks {
    /// Starts a thread. `produce` is given what takes a block and says whether more is wanted.
    ///
    /// # Errors
    /// The thread does not start.
    pub fn of<P>(produce: P) -> Result<Self, String>
    where
        P: FnOnce(&mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), String> + Send + 'static,
    {
        let (send, receive) = sync_channel(WAITING);
        let work = move || {
            let last = match produce(&mut |block| send.send(Item::Block(block)).is_ok()) {
                Ok(()) => Item::End,
                Err(why) => Item::Failed(why),
            };
            // Whoever reads may have had enough.
            let _ = send.send(last);
        };
        let started = std::thread::Builder::new().name("log".to_owned()).spawn(work);
        started.map_err(|e| format!("the reader's thread did not start: {e}"))?;
        Ok(Self { receive, block: Vec::new(), at: 0, ended: false })
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at >= self.block.len() {
            if self.ended {
                return Ok(0);
            }
            match self.receive.recv() {
                Ok(Item::Block(block)) => (self.block, self.at) = (block, 0),
                Ok(Item::End) => self.ended = true,
                Ok(Item::Failed(why)) => return Err(std::io::Error::new(FAILED, why)),
                Err(_) => return Err(std::io::Error::new(FAILED, "the reader ended before the log did")),
            }
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_as_one_text_and_a_failure_comes_after_what_was_read() {
        let mut text = String::new();
        let two = Blocks::of(|give| {
            assert!(give(b"one\ntw".to_vec()) && give(Vec::new()) && give(b"o\n".to_vec()));
            Ok(())
        });
        two.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        let mut seen = Vec::new();
        let failing = Blocks::of(|give| {
            give(b"one\n".to_vec());
            Err("cut off".to_owned())
        });
        let e = failing.unwrap().read_to_end(&mut seen).unwrap_err();
        assert_eq!((seen.as_slice(), e.to_string().as_str()), (b"one\n".as_slice(), "cut off"));
        let e = Blocks::of(|_| std::panic::resume_unwind(Box::new(()))).unwrap().read_to_end(&mut seen).unwrap_err();
        assert!(e.to_string().contains("ended before the log did"), "{e}");
    }

    #[test]
    fn a_producer_stops_when_nobody_reads_any_more() {
        let (tell, told) = std::sync::mpsc::channel();
        let blocks = Blocks::of(move |give| {
            let n = (0..1000).take_while(|_| give(vec![b'x'; 10])).count();
            tell.send(n).map_err(|e| e.to_string())
        });
        drop(blocks.unwrap());
        assert!(told.recv().unwrap() < 1000);
    }
}
