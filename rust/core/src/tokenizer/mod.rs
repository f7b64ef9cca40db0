//! WordPiece, identical to Hugging Face's fast BERT tokenizer.
