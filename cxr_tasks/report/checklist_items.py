"""The items of two reporting checklists in short words, and where a report says something of each.

The words are this project's. The checklists themselves are Collins et al., BMJ 2024 (TRIPOD+AI: 27 items in 52 parts),
and Tejani et al., Radiology: Artificial Intelligence 2024 (CLAIM, 2024 update: 44 items).
"""

from __future__ import annotations

from typing import NamedTuple


class ChecklistItem(NamedTuple):
    """An item of a checklist.

    Attributes:
        number: As the checklist counts.
        asks: What the item asks for.
        state: What a person must state where no place says it all.
        places: Which parts of a report say something of the item, by the names of ``checklists.places_of``.
        whole: Whether these places say all that the item asks.
    """

    number: str
    asks: str
    state: str
    places: tuple[str, ...] = ()
    whole: bool = False


def _reported(number: str, asks: str, otherwise: str, *places: str) -> ChecklistItem:
    """An item that a report answers wholly where one of the places is there."""
    return ChecklistItem(number, asks, otherwise, places, whole=True)


def _in_part(number: str, asks: str, state: str, *places: str) -> ChecklistItem:
    return ChecklistItem(number, asks, state, places)


TRIPOD_AI = (
    _in_part(
        "1",
        "Title",
        "a title with the population and the outcome, and that a model is developed or evaluated",
        "answer",
    ),
    _in_part("2", "Abstract", "an abstract by TRIPOD+AI for Abstracts", "answer"),
    _in_part("3a", "Healthcare context, and why the model", "the context, the diagnostic purpose, and existing models"),
    _in_part("3b", "Population, purpose and users", "whom the model is for, at what point of care, and who uses it"),
    _in_part(
        "3c", "Known health inequalities", "inequalities between groups of people that are known for this disease"
    ),
    _in_part("4", "Objectives", "your objectives, and whether you develop a model, evaluate one, or both", "claims"),
    _in_part(
        "5a", "Sources of the data", "who collected the images, why you use them, and whom they represent", "compared"
    ),
    _in_part("5b", "Dates of the data", "when the first and the last image were taken"),
    _in_part("6a", "Setting and centres", "the kind of care, and the number and location of centres", "subgroups"),
    _in_part("6b", "Who was eligible", "by which criteria patients came into the data", "settings"),
    _in_part("6c", "Treatments", "treatments that may show in the images, and how you handled them"),
    _in_part(
        "7", "Preparation and checks of the data", "what was done to the images before this run read them", "settings"
    ),
    _in_part(
        "8a", "The outcome", "how and when each class was determined, and whether alike in all groups", "compared"
    ),
    _in_part("8b", "Who assessed the outcome", "qualifications and demographics of those who labelled the images"),
    _in_part("8c", "Blinding of the outcome", "whether those who labelled knew the model's answers or other findings"),
    _in_part("9a", "Choice of predictors", "why the image alone is the predictor", "method"),
    _in_part("9b", "Definition of predictors", "devices, views and how the images were taken", "settings"),
    _in_part("9c", "Who assessed predictors", "who chose or cropped images, where people did so", "method"),
    _in_part("10", "Sample size", "how many images you planned for, and why", "comparison"),
    _in_part("11", "Missing data", "patients without an image or a label, and why they are left out", "left_out"),
    _reported("12a", "Use and partition of the data", "how the data were divided", "compared", "settings"),
    _reported("12b", "Handling of predictors", "how pixels were scaled and resized", "settings"),
    _in_part("12c", "Type of model, and how it was built", "why you chose these networks", "compared", "settings"),
    _in_part("12d", "Differences between clusters", "how hospitals or countries differ", "external", "subgroups"),
    _in_part("12e", "Measures of performance", "why these measures suit your question", "method", "pairs"),
    _in_part("12f", "Updating of the model", "whether you recalibrate the model for a setting", "pairs"),
    _in_part("12g", "How predictions are computed", "where others find the code or the service", "promoted"),
    _in_part(
        "13", "Class imbalance", "why you balance classes, and whether you recalibrate after it", "compared", "pairs"
    ),
    _in_part("14", "Fairness", "what you did for fairness, and why", "subgroups"),
    _in_part("15", "Output of the model", "why the thresholds aim at this sensitivity", "method", "thresholds"),
    _in_part(
        "16",
        "Training data against evaluation data",
        "differences in setting, eligibility and outcome",
        "method",
        "external",
    ),
    _in_part("17", "Ethical approval", "the committee, and consent or its waiver"),
    _in_part("18a", "Funding", "who paid, and the role of the funders"),
    _in_part("18b", "Conflicts of interest", "conflicts and disclosures of all authors"),
    _in_part("18c", "Protocol", "where the protocol is, or that there is none", "settings"),
    _in_part("18d", "Registration", "the register and number, or that the study is not registered"),
    _in_part("18e", "Data sharing", "who can have the data, and how", "compared"),
    _in_part("18f", "Code sharing", "where the code is, and its version", "settings"),
    _in_part("19", "Patients and the public", "how patients or the public took part, or that they did not"),
    _in_part("20a", "Flow of participants", "how many people there were at each step before this dataset", "compared"),
    _in_part(
        "20b", "Characteristics of participants", "age, sex and other characteristics of each source", "subgroups"
    ),
    _in_part("20c", "Development data beside evaluation data", "predictors and demographics by split", "compared"),
    _in_part("21", "Numbers in each analysis", "how many patients these images are of", "compared", "comparison"),
    _in_part("22", "The model itself", "where others get the model, and under what terms", "promoted", "links"),
    _in_part(
        "23a",
        "Performance with intervals",
        "intervals of each model's own figures",
        "claims",
        "comparison",
        "subgroups",
    ),
    _in_part("23b", "Performance between clusters", "performance by hospital or country", "external", "subgroups"),
    _in_part("24", "Results of updating", "the updated model and its performance, if you updated one"),
    _in_part(
        "25",
        "Interpretation",
        "what the results mean for your objectives, for fairness, and beside other studies",
        "claims",
    ),
    _in_part("26", "Limitations", "limits of your data that this run cannot see", "warnings", "method"),
    _in_part("27a", "Poor or missing input in use", "what users do with poor images or without one"),
    _in_part("27b", "What users must do and know", "how users handle the model, and what they must have learned"),
    _in_part("27c", "Next steps", "what should be studied next"),
)

CLAIM_2024 = (
    _in_part("1", "A title that names the AI method", "a title that says so, and the kind of technology", "answer"),
    _in_part("2", "Summary", "a summary of design, methods, results and conclusions", "answer"),
    _in_part("3", "Background", "the background, the intended use and the role of the AI"),
    _in_part("4", "Aims and hypotheses", "your aims and hypotheses", "claims"),
    _in_part("5", "Prospective or retrospective", "which of both the study is"),
    _in_part("6", "Goal of the study", "the goal, such as feasibility or non-inferiority", "claims"),
    _in_part("7", "Sources of the data", "institutions, databases and how you got the images", "compared"),
    _in_part("8", "Inclusion and exclusion", "by which criteria patients came into the data", "settings"),
    _in_part("9", "Preprocessing", "what was done to the images before this run read them", "settings"),
    _in_part(
        "10",
        "Subsets of the data",
        "whether the images are a selection of larger data, and how it was made",
        "settings",
    ),
    _in_part("11", "De-identification", "how the images were de-identified"),
    _in_part("12", "Missing data", "how missing images and labels were handled", "left_out"),
    _in_part("13", "Acquisition of the images", "devices, views and protocols"),
    _in_part("14", "Reference standard: definition", "how the class of each image was determined"),
    _in_part("15", "Reference standard: rationale", "why this standard, and what else there is"),
    _in_part("16", "Source of the annotations", "who annotated, with what training"),
    _in_part("17", "Annotation of the test set", "how the test images were annotated"),
    _in_part("18", "Variability between and within raters", "how far raters agree"),
    _reported("19", "Assignment to partitions", "how the data were divided", "settings", "compared"),
    _in_part(
        "20",
        "Level at which partitions are disjoint",
        "whether your data tell patients apart",
        "comparison",
        "settings",
    ),
    _in_part("21", "Intended sample size", "how many test images you planned for, and why", "comparison"),
    _in_part("22", "Description of the model", "a reference or a drawing of each network", "compared", "settings"),
    _in_part("23", "Software", "libraries and their versions", "links"),
    _reported("24", "Initial parameters", "what the weights begin with", "settings"),
    _reported("25", "Training", "how the models were trained", "compared", "settings"),
    _reported("26", "Choice of the final model", "how the final model was chosen", "promoted"),
    _in_part("27", "Ensembles", "whether you combine models, since this run combines none"),
    _reported("28", "Metrics", "the metrics", "method"),
    _reported("29", "Significance and uncertainty", "the statistics", "method", "claims"),
    _in_part(
        "30", "Robustness", "how the figures change with seeds, settings or images", "seeds", "shortcuts", "external"
    ),
    _in_part("31", "Explainability", "how the heat maps were checked", "gallery"),
    _reported("32", "Evaluation on internal data", "performance on your own test images", "comparison", "pairs"),
    _reported(
        "33", "Testing on external data", "tests on images of another hospital, or that there are none", "external"
    ),
    _in_part("34", "Registration of a clinical trial", "the register and number, if there is a trial"),
    _in_part(
        "35",
        "Included and excluded",
        "how many patients or examinations were excluded, and why",
        "compared",
        "left_out",
    ),
    _in_part(
        "36", "Characteristics in each partition", "demographics and clinical findings in each partition", "subgroups"
    ),
    _in_part("37", "Performance and its uncertainty", "intervals of each model's own metrics", "claims", "comparison"),
    _in_part(
        "38",
        "Diagnostic performance and its precision",
        "intervals of each model's sensitivity and specificity",
        "pairs",
    ),
    _in_part("39", "Analysis of failures", "what a physician sees in the images that are classified wrongly", "pairs"),
    _in_part("40", "Limitations", "limits of your data that this run cannot see", "warnings", "method"),
    _in_part("41", "Implications for practice", "what follows for practice, and the role of the model in it"),
    _in_part("42", "Protocol or further details", "where the full protocol is", "settings"),
    _in_part("43", "Availability", "where software, model and data can be had", "links"),
    _in_part("44", "Funding", "who paid, and the role of the funders"),
)
