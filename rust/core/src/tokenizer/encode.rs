//! [`Tokenizer`]: the stages put together.

use super::added_tokens::AddedTokens;
use super::assemble::{Kept, write};
use super::decoder::Decoder;
use super::encoding::{EncodeOptions, Piece, Placed, Ragged};
use super::fast_path::FastPath;
use super::files::Settings;
use super::normalizer::{Normalizer, NormalizerOptions, Sink};
use super::parallel::Parts;
use super::pre_tokenizer::{Word, Words};
use super::template::Template;
use super::truncation::{Side, Strategy, kept};
use super::vocabulary::Vocabulary;
use super::word_cache::WordCache;
use super::wordpiece::WordPiece;
use crate::error::{Error, Result};
use crate::free_list::FreeList;
use std::ops::Range;

/// A WordPiece tokenizer, equal to Hugging Face's fast BERT tokenizer. Immutable: share it between threads.
///
/// Opened with [`Tokenizer::from_folder`], [`Tokenizer::from_json`] or [`Tokenizer::from_vocab`].
#[derive(Debug)]
pub struct Tokenizer {
    pub(super) vocabulary: Vocabulary,
    pub(super) normalizer: Normalizer,
    pub(super) model: WordPiece,
    pub(super) fast_path: FastPath,
    pub(super) added: AddedTokens,
    pub(super) template: Template,
    pub(super) decoder: Decoder,
    pub(super) settings: Settings,
    /// One for each thread that has encoded at the same time as others.
    pub(super) scratches: FreeList<Scratch>,
    /// One for each call on several threads.
    pub(super) parts: FreeList<Parts>,
}

/// What the files of a tokenizer say, each in its room.
pub(super) struct Rooms {
    pub vocabulary: Vocabulary,
    pub normalizer: Normalizer,
    pub model: WordPiece,
    pub added: AddedTokens,
    pub template: Template,
    pub decoder: Decoder,
    pub settings: Settings,
}

/// Tokens for which a buffer is kept from call to call.
pub(super) const MOST_KEPT: usize = 1 << 22;

/// Buffers that encoding reuses from text to text, and words it has seen: one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) words: WordScratch,
    /// Tokens of a text and its pair, before truncation: one of the two is in use.
    ids: [Vec<i32>; 2],
    placed: [Vec<Placed>; 2],
}

impl Scratch {
    /// Keeps what texts need again and again, not what a single one did.
    fn forget_much(&mut self) {
        fn some<T>(buffers: &mut [Vec<T>; 2]) {
            buffers
                .iter_mut()
                .filter(|buffer| buffer.capacity() > MOST_KEPT)
                .for_each(|buffer| *buffer = Vec::new());
        }
        some(&mut self.ids);
        some(&mut self.placed);
    }
}

/// How many tokens of a text are of use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// As many as texts may keep together.
    pub kept: usize,
    /// What lies beyond is not even looked at, but for one token that tells that it is there.
    pub limit: usize,
}

/// Most bytes of a text: its characters are counted in 32 bits.
pub(crate) const LONGEST: usize = i32::MAX as usize - 1;

/// What collecting words needs.
#[derive(Debug, Default)]
pub(super) struct WordScratch {
    pub word: Word,
    pub cache: WordCache,
}

/// What may be tokenized: a text, or one that is already split into words.
pub trait Text: Sync {
    /// Its bytes of UTF-8.
    fn bytes(&self) -> usize;
    /// All of it, if it is one text.
    fn whole(&self) -> Option<&str> {
        None
    }
    /// Gives its parts, each with the number of its word if it is one.
    fn parts(&self) -> impl Iterator<Item = (Option<i32>, &str)>;
}

impl Text for &str {
    fn bytes(&self) -> usize {
        self.len()
    }

    fn whole(&self) -> Option<&str> {
        Some(self)
    }

    fn parts(&self) -> impl Iterator<Item = (Option<i32>, &str)> {
        std::iter::once((None, *self))
    }
}

/// Words: each is tokenized by itself, and offsets count from its start.
impl Text for Vec<&str> {
    fn bytes(&self) -> usize {
        self.iter().map(|word| word.len()).sum()
    }

    fn parts(&self) -> impl Iterator<Item = (Option<i32>, &str)> {
        (0..).map(Some).zip(self.iter().copied())
    }
}

impl Tokenizer {
    pub(super) fn new(rooms: Rooms) -> Self {
        let Rooms { vocabulary, normalizer, model, added, template, decoder, settings } = rooms;
        let fast_path = FastPath::new(&normalizer, &model);
        let (scratches, parts) = (FreeList::default(), FreeList::default());
        Self {
            vocabulary,
            normalizer,
            model,
            fast_path,
            added,
            template,
            decoder,
            settings,
            scratches,
            parts,
        }
    }

    /// Encodes every text (or pair), in order.
    ///
    /// # Errors
    /// `Error::Value` as [`Self::encode_into`], or if there is not one pair for each text.
    pub fn encode_batch<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        options: &EncodeOptions,
    ) -> Result<Ragged> {
        let mut out = Ragged::new(options);
        self.with_scratch(|scratch| {
            self.encode_range(texts, pairs, 0..texts.len(), options, scratch, &mut out)
        })?;
        Ok(out)
    }

    /// With buffers and known words of calls before, if there are any that nobody uses now.
    pub(crate) fn with_scratch<R>(&self, encode: impl FnOnce(&mut Scratch) -> R) -> R {
        let mut scratch = self.scratches.take().unwrap_or_default();
        let result = encode(&mut scratch);
        scratch.forget_much();
        self.scratches.give_back(scratch);
        result
    }

    /// Puts the ids of a text, which is shorter than [`LONGEST`], behind others: no special tokens, no truncation.
    pub(crate) fn append_ids(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<i32>) {
        self.tokenize(text, &mut scratch.words, ids, usize::MAX);
    }

    /// Encodes `texts[range]` behind what `out` has: a part of a batch, for a thread or between two looks at
    /// the signals. The samples keep their numbers in the whole batch.
    ///
    /// # Errors
    /// As [`Self::encode_batch`].
    pub fn encode_range<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        range: Range<usize>,
        options: &EncodeOptions,
        scratch: &mut Scratch,
        out: &mut Ragged,
    ) -> Result<()> {
        if let Some(pairs) = pairs
            && pairs.len() != texts.len()
        {
            return Err(Error::Value(format!(
                "text_pairs: expected {} texts, as many as texts, got {}",
                texts.len(),
                pairs.len()
            )));
        }
        for sample in range {
            let pair = pairs.map(|pairs| &pairs[sample]);
            self.encode_into(&texts[sample], pair, options, sample, scratch, out)?;
        }
        Ok(())
    }

    /// Encodes one text or pair as text number `sample` and puts its sequences behind those of `out`, which
    /// must have been made with the same options.
    ///
    /// # Errors
    /// `Error::Value` if `max_length` has no room for the special tokens, the strategy cannot shorten this
    /// text to it, `stride` is too large, or the text has more than 2^31 - 2 bytes. `out` is then as before.
    pub fn encode_into<T: Text>(
        &self,
        text: &T,
        pair: Option<&T>,
        options: &EncodeOptions,
        sample: usize,
        scratch: &mut Scratch,
        out: &mut Ragged,
    ) -> Result<()> {
        let Scratch { words, ids, placed } = scratch;
        if options.is_placed() {
            self.encode_as(text, pair, options, sample, words, placed, out)
        } else {
            self.encode_as(text, pair, options, sample, words, ids, out)
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn encode_as<T: Text, P: Piece>(
        &self,
        text: &T,
        pair: Option<&T>,
        options: &EncodeOptions,
        sample: usize,
        scratch: &mut WordScratch,
        [first, second]: &mut [Vec<P>; 2],
        out: &mut Ragged,
    ) -> Result<()> {
        let budget = self.budget(pair.is_some(), options)?;
        for (text, pieces) in [(Some(text), &mut *first), (pair, &mut *second)] {
            pieces.clear();
            let Some(text) = text else { continue };
            if text.bytes() > LONGEST {
                return Err(Error::Value(format!(
                    "texts[{sample}]: expected less than 2^31 - 1 bytes, got {}",
                    text.bytes()
                )));
            }
            for (number, part) in text.parts() {
                let before = pieces.len();
                if before > budget.limit {
                    break;
                }
                self.tokenize(part, scratch, pieces, budget.limit);
                if let Some(number) = number {
                    pieces[before..].iter_mut().for_each(|piece| piece.set_word(number));
                }
            }
        }

        self.write(first, pair.is_some().then_some(&second[..]), budget, options, sample, out)
    }

    /// Puts the tokens of a text (or pair) behind what `out` has, as far as they are kept.
    pub(super) fn write<P: Piece>(
        &self,
        first: &[P],
        second: Option<&[P]>,
        budget: Budget,
        options: &EncodeOptions,
        sample: usize,
        out: &mut Ragged,
    ) -> Result<()> {
        let (keep_first, keep_second) =
            kept(first.len(), second.map(<[P]>::len), budget.kept, options.truncation)?;
        let first = Kept { pieces: first, keep: keep_first };
        let second = second.zip(keep_second).map(|(pieces, keep)| Kept { pieces, keep });
        write(&self.template, first, second, options, sample, out)
    }

    /// How many tokens are left for the texts.
    pub(super) fn budget(&self, is_pair: bool, options: &EncodeOptions) -> Result<Budget> {
        let max_length = match (options.truncation, options.max_length) {
            (Strategy::None, _) => return Ok(Budget { kept: usize::MAX, limit: usize::MAX }),
            (_, None) => {
                return Err(Error::Value("max_length: expected a number with truncation, got None".into()));
            }
            (_, Some(max_length)) => max_length,
        };
        let added = if options.add_special_tokens { self.template.added(is_pair) } else { 0 };
        let kept = max_length.checked_sub(added).ok_or_else(|| {
            Error::Value(format!(
                "max_length: expected at least {added} for the special tokens alone, got {max_length}"
            ))
        })?;
        // Only an odd token for the longer text of a pair needs to know how long both are.
        let lengths_matter = is_pair && options.truncation == Strategy::LongestFirst && kept % 2 == 1;
        let lossy = !options.want_overflow && options.truncation_side == Side::Right;
        Ok(Budget { kept, limit: if lossy && !lengths_matter { kept } else { usize::MAX } })
    }

    /// The tokens of `text`; at most `limit` of them and those of one word more.
    pub(super) fn tokenize<P: Piece>(
        &self,
        text: &str,
        scratch: &mut WordScratch,
        pieces: &mut Vec<P>,
        limit: usize,
    ) {
        let WordScratch { word, cache } = scratch;
        let mut words = Words::new(&self.model, &self.fast_path, word, cache, pieces, limit);
        let mut source = 0;
        self.added.split_raw(text, |part| {
            if words.is_full() {
                return;
            }
            let inside = &text[part.start..part.end];
            match part.id {
                Some(id) => {
                    let end = if P::PLACED { source + inside.chars().count() as u32 } else { 0 };
                    words.token(id as i32, source, end);
                    source = end;
                }
                None => source = self.tokenize_between(inside, source, &mut words),
            }
        });
    }

    /// The tokens of a part of a text that has no (raw) added token in it.
    #[inline]
    fn tokenize_between<P: Piece>(&self, text: &str, first: u32, words: &mut Words<'_, P>) -> u32 {
        if !self.added.has_normalized() {
            let mark = words.mark();
            if let Ok(end) = self.normalizer.stream(text, first, words) {
                words.end_word();
                return end;
            }
            words.forget_since(mark);
        }
        let aligned = self.normalizer.normalize_aligned(text, first);
        self.added.split_normalized(&aligned.text, |part| {
            let range = part.start..part.end;
            match part.id {
                Some(id) => {
                    words.token(id as i32, aligned.sources[part.start], aligned.sources[part.end - 1] + 1);
                }
                None => {
                    let (text, sources) = (&aligned.text[range.clone()], &aligned.sources[range]);
                    self.normalizer.send_aligned(text, sources, words);
                    words.end_word();
                }
            }
        });
        first + text.chars().count() as u32
    }

    /// The normalized form of `text`: what the words are made of. Added tokens are not looked for.
    pub fn normalize(&self, text: &str) -> String {
        self.normalizer.normalize_aligned(text, 0).text
    }

    /// The options that the text is normalized with.
    pub fn normalizer_options(&self) -> NormalizerOptions {
        self.normalizer.options()
    }

    /// The text of `ids`, as the reference's WordPiece decoder writes it; ids that no token has are left out.
    pub fn decode(&self, ids: &[i64], skip_special_tokens: bool) -> String {
        let tokens = ids.iter().filter_map(|&id| {
            let id = u32::try_from(id).ok()?;
            let skipped = skip_special_tokens && self.added.get(id).is_some_and(|token| token.special);
            if skipped { None } else { self.added.decoded(id).or_else(|| self.vocabulary.token(id)) }
        });
        self.decoder.decode(tokens)
    }

    /// The text of tokens, as the decoder joins them.
    pub fn decode_tokens<'a>(&self, tokens: impl Iterator<Item = &'a str>) -> String {
        self.decoder.decode(tokens)
    }

    /// The added tokens with their ids, sorted by id.
    pub fn added_vocab(&self) -> impl Iterator<Item = (u32, &str)> {
        self.added.iter().map(|(id, token)| (id, token.content.as_str()))
    }

    /// Tokens of the model's vocabulary, the added ones left out.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// All tokens with their ids, sorted by id: the model's and the added ones.
    pub fn vocab(&self) -> Vec<(u32, &str)> {
        let added = self.added.iter().filter(|(_, token)| self.vocabulary.id(&token.content).is_none());
        let mut all: Vec<_> = self.vocabulary.iter().map(|(token, id)| (id, token)).collect();
        all.extend(added.map(|(id, token)| (id, token.content.as_str())));
        all.sort_unstable();
        all
    }

    /// The id of a token, added or the model's own.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.vocabulary.id(token))
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        self.added.get(id).map(|token| token.content.as_str()).or_else(|| self.vocabulary.token(id))
    }

    /// Ids that `decode` leaves out with `skip_special_tokens`, sorted.
    pub fn all_special_ids(&self) -> Vec<u32> {
        self.added.iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect()
    }

    /// How many special tokens a text (or pair) gets.
    pub fn num_special_tokens_to_add(&self, is_pair: bool) -> usize {
        self.template.added(is_pair)
    }

    /// What the folder says beside the vocabulary: special tokens' names, the longest input, sides.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
