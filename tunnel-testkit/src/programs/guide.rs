//! Configurations of others as the guides have them.

/// The first block of a guide (Markdown) whose opening fence says this, such as `nginx` or `yaml server`, with some of
/// its words replaced: addresses, files and times. So what people copy is what the tests run.
///
/// # Panics
///
/// If there is no such block, or it does not have one of the words.
#[must_use]
pub fn documented(guide: &str, info: &str, words: &[(&str, &str)]) -> String {
    let (_, rest) = guide.split_once(&format!("```{info}\n")).expect("a block");
    let (block, _) = rest.split_once("```").expect("its end");
    words.iter().fold(block.to_owned(), |block, (word, replacement)| {
        assert!(block.contains(word), "no {word} in {block}");
        block.replace(word, replacement)
    })
}
