use super::*;
use proptest::prelude::*;

/// A bar stands where a sentence ends.
const CASES: [&str; 46] = [
    "",
    "  \n\u{3000} ",
    "One. | Two! | Three? | Four",
    "He paid 3.50 dollars. | Then 1,000.5 more.",
    "Mr. Smith met Dr. Who and Prof. X. | They left.",
    "See e.g. Smith, i.e. the first. | It rains.",
    "J. R. R. Tolkien wrote it. | George W. Bush did not.",
    "He took plan B. | The others did not.",
    "A man came. | A. Smith came, too. | With A. A. Smith.",
    "He lives in the U.S. | The weather is fine.",
    "The U.S. Army came at 5 p.m. | It left. | The Ph.D. student stays.",
    "She works at Apple Inc. | They pay. | Apple Inc. CEO Tim Cook agrees.",
    "See No. 5, Fig. 3, pp. 4 and vol. 12. | Is that a no? | No. | Yes.",
    "On Jan. 5 it began. | It ended in Jan. | Then came spring.",
    "apples, pears, etc. | Next.",
    "apples, pears, etc. and so on.",
    "\"What?\" he asked. | \"Nothing.\" | \"Really?!\" | (Yes.) | [No.] | Then (so.)",
    "He said: \u{201c}Go away!\u{201d} | \u{201c}Why?\u{201d} | \u{2018}So.\u{2019} | Then he left.",
    "Well... maybe. | Well... | Maybe. | Wait\u{2026} what? | Wait\u{2026} | What?",
    "1. Introduction",
    "IV. Results of A. Smith",
    "The end.[12] | Next one.[3][4] | Last.[x] Not. | [1] Yes.",
    "Visit www.example.com. | Or mail a.b@c.org today.",
    "Version 1.2.3. | It works.",
    "Smith et al. (2001) show it. | Smith et al. | The others do not.",
    "Roe v. Wade. | Us vs. Them.",
    "Really? \u{2013} no. | Yes! | \u{2013} Never.",
    "In 1984. | It was cold.",
    "Yahoo!Answers is node.js and file.txt",
    "first line. | Second\nline. | Third",
    "\u{c9}t\u{e9}. | \u{c0} demain. \u{e0} bient\u{f4}t.",
    "\u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}. | \u{41a}\u{430}\u{43a} \u{434}\u{435}\u{43b}\u{430}?",
    "他走了。|你呢？|好！|第一；|第二。",
    "他说：“走吧！”|她没有动。",
    "他说：“走吧！”，然后走了。",
    "“好。”。|然后呢？！|“真的吗？！”|（是的。）|【完。】",
    "《你好！》是一本书。|我看了《走！》。",
    "他……|走了……|“完”，没有。——鲁迅",
    "价格是3.14元。|涨了1.5％，３．１４。 | 好",
    "你好.|我是小明.|再见",
    "1.第一条。 | A.苹果 B.香蕉",
    "什么?!|你说什么?|没有!",
    "我用Python.|你呢",
    "。。。|完。",
    "これはペンです。|「はい！」|と言った。",
    "यह है। | वह है।",
];

#[test]
fn sentences_end_where_they_should() {
    let mut failed = Vec::new();
    for case in CASES {
        let expected: Vec<_> =
            case.split('|').map(str::trim).filter(|sentence| !sentence.is_empty()).collect();
        let found = split_sentences(&case.replace(" | ", " ").replace('|', "")).join("|");
        if found != expected.join("|") {
            failed.push(format!("expected {}\n     got {found}", expected.join("|")));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn marks_are_told_by_their_first_bytes() {
    for c in '\0'..=char::MAX {
        let text = c.to_string();
        let first = FIRST_BYTES[usize::from(text.as_bytes()[0])];
        assert_eq!(first && may_end(format!("{c}\n").as_bytes()), mark(c).is_some(), "{c:?}");
        assert_eq!(first && may_end(text.as_bytes()), mark(c).is_some(), "{c:?}");
    }
}

#[test]
fn footnotes() {
    for (text, expected) in [
        ("One.[12][3] Two.", vec!["One.[12][3]", "Two."]),
        ("One.[12[3] Two.", vec!["One.[12[3] Two."]),
        ("One.[] Two.", vec!["One.[] Two."]),
        ("One.[a] Two.", vec!["One.[a] Two."]),
        ("One.[1", vec!["One.[1"]),
    ] {
        assert_eq!(split_sentences(text), expected);
    }
    // Would take minutes if each looked for its end in all that follows.
    let text = "a.[".repeat(2_000_000);
    assert_eq!(split_sentences(&text), [&*text]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_is_lost_and_a_text_can_be_cut_at_an_end(
        text in "([aAzDr1中。！…?!.,，“”\"'()\\[\\]《》 \n\u{3000}]|Dr\\. |U\\.S\\. |The |\\[1\\]){0,40}",
        bytes in 0usize..40,
    ) {
        let found = split_sentences(&text);
        let without_space = |text: &str| text.split_whitespace().collect::<String>();
        prop_assert_eq!(without_space(&found.concat()), without_space(&text));
        prop_assert!(found.iter().all(|sentence| !sentence.is_empty() && sentence.trim() == *sentence));
        let parts: Vec<_> = cut(&text, bytes).collect();
        prop_assert!(parts.iter().rev().skip(1).all(|part| part.len() >= bytes));
        // Behind the last sentence of a part its text ends, which may end a sentence by itself, but nothing else.
        let again: Vec<_> = parts.iter().flat_map(|part| split_sentences(part)).collect();
        prop_assert_eq!(again, found);
    }

    #[test]
    fn any_text(text: String) {
        let found = split_sentences(&text);
        prop_assert!(found.iter().all(|sentence| !sentence.is_empty()));
    }
}
