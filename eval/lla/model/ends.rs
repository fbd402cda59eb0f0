//! The two ends of the model: tokens to vectors, and vectors to a loss; each with its backward.

use super::{Model, Outcome};
use crate::mat::{add, mat, product, softmax, times};
use crate::tasks::{Tokens, VOCABULARY};

impl Model {
    pub(super) fn embedding(&self, tokens: &Tokens, rows: usize) -> Vec<f32> {
        let (width, table) = (self.config.width, self.parameters.get(&self.embed));
        match tokens {
            Tokens::Regression { dim, inputs, .. } => times(mat(inputs, rows, 3 * dim), mat(table, 3 * dim, width)),
            Tokens::Recall { keys, values, .. } => {
                let mut x = vec![0.0; rows * width];
                for ((x, key), value) in x.chunks_exact_mut(width).zip(keys).zip(values) {
                    add(&table[key * width..(key + 1) * width], x);
                    add(&table[second(*value) * width..(second(*value) + 1) * width], x);
                }
                x
            }
        }
    }

    pub(super) fn embedding_back(&mut self, tokens: &Tokens, grad: &[f32], rows: usize) {
        let width = self.config.width;
        let table = self.parameters.grad(&self.embed);
        match tokens {
            Tokens::Regression { dim, inputs, .. } => {
                product(1.0, mat(inputs, rows, 3 * dim).t(), mat(grad, rows, width), 1.0, table);
            }
            Tokens::Recall { keys, values, .. } => {
                for ((grad, key), value) in grad.chunks_exact(width).zip(keys).zip(values) {
                    add(grad, &mut table[key * width..(key + 1) * width]);
                    add(grad, &mut table[second(*value) * width..(second(*value) + 1) * width]);
                }
            }
        }
    }

    /// Loss, and its gradient with respect to the read-out (`rows x outputs`; unasked rows are zero).
    pub(super) fn judge(&self, tokens: &Tokens, x: &[f32], rows: usize) -> (Outcome, Vec<f32>) {
        let (width, read) = (self.config.width, self.parameters.get(&self.read));
        match tokens {
            Tokens::Regression { dim, targets, .. } => {
                let mut out = times(mat(x, rows, width), mat(read, width, *dim));
                let n = out.len();
                out.iter_mut().zip(targets).for_each(|(o, t)| *o -= t);
                let loss = out.iter().map(|e| f64::from(e * e)).sum::<f64>() / n as f64;
                out.iter_mut().for_each(|e| *e *= 2.0 / n as f32);
                (Outcome { loss, accuracy: 0.0, asked: rows }, out)
            }
            Tokens::Recall { answers, .. } => {
                let asked = answers.iter().flatten().count();
                let mut grad = vec![0.0; rows * VOCABULARY];
                let mut outcome = Outcome { asked, ..Outcome::default() };
                for (row, answer) in answers.iter().enumerate() {
                    let Some(answer) = *answer else { continue };
                    let logits = &mut grad[row * VOCABULARY..(row + 1) * VOCABULARY];
                    product(1.0, mat(&x[row * width..], 1, width), mat(read, width, VOCABULARY), 0.0, logits);
                    let right = logits.iter().all(|l| *l <= logits[answer]);
                    let own = logits[answer];
                    outcome.loss += f64::from(softmax(logits) - own) / asked as f64;
                    outcome.accuracy += f64::from(u8::from(right)) / asked as f64;
                    logits[answer] -= 1.0;
                    logits.iter_mut().for_each(|l| *l /= asked as f32);
                }
                (outcome, grad)
            }
        }
    }

    pub(super) fn read_back(&mut self, x: &[f32], grad: &[f32], rows: usize) -> Vec<f32> {
        let (width, outputs) = (self.config.width, self.read.len() / self.config.width);
        let grad = mat(grad, rows, outputs);
        product(1.0, mat(x, rows, width).t(), grad, 1.0, &mut self.parameters.grads[self.read.clone()]);
        times(grad, mat(self.parameters.get(&self.read), width, outputs).t())
    }
}

/// Row of the table for what stands beside the key: the value, or the mark of a query.
fn second(value: Option<usize>) -> usize {
    VOCABULARY + value.unwrap_or(VOCABULARY)
}
