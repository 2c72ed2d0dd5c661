//! The model: the only file that knows llama.cpp. Loading, tokens and text, and one step of the batch.

use super::batch::{BATCH_TOKENS_MAX, Entry, Evaluate};
use super::slot::Token;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::OnceLock;

/// First bytes of a model file (source: the GGUF specification).
const GGUF_MAGIC: &[u8; 4] = b"GGUF";

static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();

/// What the model knows of text: shared by the HTTP side, which tokenises, and the batch, which speaks.
#[derive(Clone, Copy)]
pub struct Vocabulary {
    model: &'static LlamaModel,
}

/// A model with its slots, owned by the batch's thread.
pub struct Llama {
    context: LlamaContext<'static>,
    batch: LlamaBatch<'static>,
    vocabulary: Vocabulary,
}

/// How the model is to be set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Conversations held at once.
    pub slots: u32,
    /// Tokens of each.
    pub context: u32,
    /// Threads; more than there are processors are not used (4 on 2 measured 0.3 tokens/s in place of 150).
    pub threads: u32,
}

/// Loads a GGUF file for the life of the process.
///
/// # Errors
/// A sentence that names the file; llama.cpp's own reason is in the log.
pub fn load(path: &Path) -> Result<Vocabulary, String> {
    look(path)?;
    let parameters = LlamaModelParams::default();
    let model = LlamaModel::load_from_file(backend()?, path, &parameters)
        .map_err(|error| format!("{}: llama.cpp cannot load the model: {error}", path.display()))?;
    // Threads and slots refer to it until the process ends.
    Ok(Vocabulary { model: Box::leak(Box::new(model)) })
}

fn backend() -> Result<&'static LlamaBackend, String> {
    let started = BACKEND.get_or_init(|| {
        llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default());
        LlamaBackend::init().map_err(|error| format!("llama.cpp cannot start: {error}"))
    });
    started.as_ref().map_err(Clone::clone)
}

/// A better sentence than llama.cpp's for the usual mistakes.
fn look(path: &Path) -> Result<(), String> {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == GGUF_MAGIC => Ok(()),
        Ok(()) => Err(format!("{}: not a GGUF model file", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

impl Vocabulary {
    /// Makes the slots.
    ///
    /// # Errors
    /// Out of memory, as a rule.
    pub fn open(self, setup: Setup) -> Result<Llama, String> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (setup.threads as usize).clamp(1, cores) as i32;
        let slots = setup.slots.max(1);
        let parameters = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(slots.saturating_mul(setup.context)))
            .with_n_seq_max(slots)
            .with_n_batch(BATCH_TOKENS_MAX as u32)
            .with_n_ubatch(BATCH_TOKENS_MAX as u32)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            // Apart, so that what idle slots hold costs the running ones nothing (together: a quarter more a token).
            .with_kv_unified(false)
            .with_no_perf(true);
        let context = self
            .model
            .new_context(backend()?, parameters)
            .map_err(|error| format!("no memory for {slots} slots of {} tokens: {error}", setup.context))?;
        Ok(Llama { context, batch: LlamaBatch::new(BATCH_TOKENS_MAX, 1), vocabulary: self })
    }

    /// Most tokens of context that the model was trained on.
    pub fn context_max(&self) -> u32 {
        self.model.n_ctx_train()
    }

    /// The model's own chat template, a Jinja text.
    ///
    /// # Errors
    /// A sentence when it has none: it is no chat model.
    pub fn template(&self) -> Result<String, String> {
        let none = || "the model has no chat template: it is not made for chats".to_owned();
        self.model.meta_val_str("tokenizer.chat_template").map_err(|_| none())
    }

    /// Tokens of `text`; `control` says whether the texts of control tokens become these tokens.
    pub fn tokens(&self, text: &str, control: bool) -> Vec<Token> {
        self.model.vocab().tokenize(text.as_bytes(), false, control).into_iter().map(|token| token.0).collect()
    }

    /// The text of `tokens`, control tokens included; bytes that are no text are U+FFFD.
    pub fn text(&self, tokens: &[Token]) -> String {
        let tokens: Vec<LlamaToken> = tokens.iter().copied().map(LlamaToken::new).collect();
        String::from_utf8_lossy(&self.model.vocab().detokenize(&tokens, false, true)).into_owned()
    }

    /// The beginning-of-text token, where a conversation must begin with it.
    pub fn required_start(&self) -> Option<Token> {
        let vocabulary = self.model.vocab();
        vocabulary.should_add_bos().then(|| vocabulary.bos().0)
    }

    /// The texts of the beginning-of-text and end-of-text tokens, as templates want them.
    pub fn borders(&self) -> (String, String) {
        let vocabulary = self.model.vocab();
        (self.shown(vocabulary.bos()), self.shown(vocabulary.eos()))
    }

    /// The text of every control token.
    pub fn control_texts(&self) -> Vec<String> {
        let vocabulary = self.model.vocab();
        let texts = vocabulary.tokens().filter(|token| vocabulary.is_control(*token)).map(|token| self.shown(token));
        texts.filter(|text| !text.is_empty()).collect()
    }

    /// Bytes of the longest token: no shorter text has fewer tokens than its length over this.
    pub fn token_bytes_max(&self) -> usize {
        let vocabulary = self.model.vocab();
        vocabulary.tokens().map(|token| vocabulary.token_to_piece(token, true, None).len()).max().unwrap_or(1).max(1)
    }

    /// Any ordinary token.
    pub fn any_token(&self) -> Token {
        self.tokens("a", false).first().copied().unwrap_or(0)
    }

    fn shown(&self, token: LlamaToken) -> String {
        if token.0 < 0 {
            return String::new();
        }
        String::from_utf8_lossy(&self.model.vocab().token_to_piece(token, true, None)).into_owned()
    }
}

impl Evaluate for Llama {
    fn step(&mut self, entries: &[Entry]) -> Result<(), String> {
        self.batch.clear();
        for entry in entries {
            let token = LlamaToken::new(entry.token);
            self.batch
                .add(token, entry.position as i32, &[entry.slot as i32], entry.wants_logits)
                .map_err(|error| error.to_string())?;
        }
        self.context.decode(&mut self.batch).map_err(|error| error.to_string())
    }

    fn logits(&self, index: usize) -> &[f32] {
        self.context.get_logits_ith(index as i32)
    }

    fn keep(&mut self, slot: usize, tokens: usize) -> bool {
        let kept = self.context.clear_kv_cache_seq(Some(slot as u32), Some(tokens as u32), None);
        if !matches!(kept, Ok(true)) {
            // A model with a sliding window or a recurrent state keeps all or nothing.
            let _ = self.context.clear_kv_cache_seq(Some(slot as u32), None, None);
            return false;
        }
        true
    }

    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> bool {
        let _ = self.context.clear_kv_cache_seq(Some(to as u32), None, None);
        let copied = self.context.copy_kv_cache_seq(from as i32, to as i32, None, None);
        copied.is_ok() && self.keep(to, tokens)
    }

    fn is_end(&self, token: Token) -> bool {
        self.vocabulary.model.vocab().is_eog(LlamaToken::new(token))
    }

    fn piece(&self, token: Token, bytes: &mut Vec<u8>) {
        self.vocabulary.model.vocab().token_to_piece_into(LlamaToken::new(token), bytes, false, None);
    }
}
