//! The sorted set beside the standard library's.

use std::collections::BTreeSet;

use edgeweir::names::Names;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_are_a_sorted_set(words in prop::collection::vec("[a-dé]{0,2}", 0..40), asked in "[a-dé]{0,2}") {
        let mut names = Names::new();
        let mut set = BTreeSet::new();
        for word in &words {
            prop_assert_eq!(names.insert(word.clone()), set.insert(word.clone()));
        }
        prop_assert_eq!(names.len(), set.len());
        prop_assert_eq!(names.is_empty(), set.is_empty());
        prop_assert_eq!(names.contains(&asked), set.contains(&asked));
        prop_assert!(names.iter().eq(&set));
        prop_assert_eq!(&names, &words.into_iter().rev().collect::<Names>());
        prop_assert_eq!(names.into_vec(), Vec::from_iter(set));
    }
}
